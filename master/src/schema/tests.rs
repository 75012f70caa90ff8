use super::*;

#[test]
fn every_key_of_a_test_has_its_line() {
    let commands = Commands::default();
    let spec = commands.spec(start_test::NAME).unwrap();
    for parameter in spec.parameters {
        let schema = start_test::key(parameter.name);
        let about = schema.as_ref().and_then(|schema| schema.get("description"));
        assert!(about.is_some(), "`{}` is not described in schema/start_test.rs", parameter.name);
    }
    for driver in ld_worker::protocol::PROTOCOLS {
        let (schema, options) = ((driver.schema)(), (driver.options_schema)());
        let described = |schema: &Value| schema["description"].is_string();
        let properties = schema["properties"].as_object().unwrap();
        assert!(properties.keys().eq(driver.fields), "{:?}: fields and their schema", driver.keys);
        assert!(options.keys().eq(driver.options), "{:?}: options and their schema", driver.keys);
        for (name, schema) in properties.iter().chain(&options) {
            assert!(described(schema), "`{name}` of {:?} is not described", driver.keys);
        }
    }
}

#[test]
fn every_command_and_parameter_is_described() {
    let commands = Commands::default();
    let schema = of(&commands);
    for name in commands.names() {
        let arguments = &schema["$defs"][name];
        assert!(arguments["description"].is_string(), "{name}");
        for form in arguments["anyOf"].as_array().unwrap() {
            for (key, value) in form["properties"].as_object().into_iter().flatten() {
                let is_described = value["description"].is_string() || !name.starts_with("LD_");
                assert!(
                    is_described,
                    "`{key}` of `{name}` is not described: give it `about`, or a line in schema/words.rs"
                );
            }
        }
    }
}

/// Every reference leads somewhere.
#[test]
fn references_hold() {
    fn walk(value: &Value, root: &Value) {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            assert!(root.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
        match value {
            Value::Array(items) => items.iter().for_each(|item| walk(item, root)),
            Value::Object(map) => map.values().for_each(|item| walk(item, root)),
            _ => {}
        }
    }
    let schema = of(&Commands::default());
    walk(&schema, &schema);
    let text = text(&Commands::default());
    assert!(text.ends_with("}\n") && text.len() < 1 << 20, "{} bytes", text.len());
}
