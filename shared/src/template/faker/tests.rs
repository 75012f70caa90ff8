use super::*;

fn source_of(n: u64) -> KeyedRng {
    KeyedRng::new(n, 1, 2)
}

fn value(method: &str, n: u64) -> String {
    Method::named(method).unwrap().make(&mut source_of(n))
}

#[test]
fn names_are_unique_and_like_pythons() {
    let mut names: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
    assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')));
    let count = names.len();
    assert!(count > 150, "{count}");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn every_method_makes_the_same_value_from_the_same_numbers_and_many_others() {
    for (name, _) in METHODS {
        let values: std::collections::BTreeSet<String> = (0..64).map(|n| value(name, n)).collect();
        assert_eq!(value(name, 7), value(name, 7), "{name}");
        assert!(values.iter().all(|v| !v.is_empty() || name.ends_with("_or_empty")), "{name}");
        assert!(!values.iter().any(|v| v.contains("${")), "{name}");
        let constant = matches!(*name, "current_country" | "current_country_code" | "bank_country");
        assert!(constant || values.len() > 1, "{name}: {values:?}");
    }
}

#[test]
fn values_have_the_form_that_their_names_promise() {
    let forms = [
        ("email", r"^[a-z0-9.]+@example\.(com|org|net)$"),
        ("user_name", r"^[a-z0-9.]+$"),
        ("ipv4", r"^\d{1,3}(\.\d{1,3}){3}$"),
        ("mac_address", r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$"),
        ("url", r"^https?://www\.[a-z]+\.[a-z]+/$"),
        ("slug", r"^[a-z]+(-[a-z]+){2}$"),
        ("postcode", r"^\d{5}$"),
        ("address", r"(?s)^\d+ .+\n.+, [A-Z]{2} \d{5}$"),
        ("latitude", r"^-?\d{1,2}\.\d{6}$"),
        ("date", r"^\d{4}-\d\d-\d\d$"),
        ("time", r"^\d\d:\d\d:\d\d$"),
        ("date_time", r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$"),
        ("iso8601", r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$"),
        ("year", r"^(19|20)\d\d$"),
        ("month", r"^\d\d$"),
        ("hex_color", r"^#[0-9a-f]{6}$"),
        ("safe_hex_color", r"^#[0-9a-f]{6}$"),
        ("boolean", r"^(True|False)$"),
        ("pyint", r"^\d{1,4}$"),
        ("words", r"^\['[a-z]+', '[a-z]+', '[a-z]+'\]$"),
        ("sentence", r"^[A-Z].*\.$"),
        ("uuid4", r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"),
        ("md5", r"^[0-9a-f]{32}$"),
        ("sha256", r"^[0-9a-f]{64}$"),
        ("credit_card_number", r"^\d{14,16}$"),
        ("iban", r"^[A-Z]{2}\d{14,26}$"),
        ("currency_code", r"^[A-Z]{3}$"),
        ("file_name", r"^[a-z]+\.\w+$"),
        ("mime_type", r"^[a-z]+/.+$"),
        ("password", r"^.{10}$"),
        ("ssn", r"^\d{3}-\d\d-\d{4}$"),
        ("future_date", r"^\d{4}-\d\d-\d\d$"),
    ];
    for (name, form) in forms {
        let form = regex::Regex::new(form).unwrap();
        for n in 0..200 {
            let value = value(name, n);
            assert!(form.is_match(&value), "{name}: {value}");
        }
    }
}

#[test]
fn check_digits_are_right() {
    for n in 0..100 {
        let luhn = |text: &str| -> u32 {
            let digits = text.chars().rev().filter_map(|c| c.to_digit(10)).enumerate();
            digits.map(|(i, d)| if i % 2 == 1 { d * 2 / 10 + d * 2 % 10 } else { d }).sum::<u32>() % 10
        };
        assert_eq!(luhn(&value("credit_card_number", n)), 0);
        let iban = value("iban", n);
        let (head, tail) = iban.split_at(4);
        let number: String = format!("{tail}{head}").chars().map(|c| c.to_digit(36).unwrap().to_string()).collect();
        assert_eq!(number.bytes().fold(0, |rest, b| (rest * 10 + u32::from(b - b'0')) % 97), 1, "{iban}");
        let ean = value("ean13", n);
        let sum: u32 = ean.bytes().enumerate().map(|(i, b)| u32::from(b - b'0') * if i % 2 == 0 { 1 } else { 3 }).sum();
        assert_eq!(sum % 10, 0, "{ean}");
    }
}

#[test]
fn what_is_no_method_is_told_the_nearest() {
    assert_eq!(Method::named("nope"), None);
    assert_eq!(Method::named("Name"), None);
    assert!(remedy("frist_name").starts_with("did you mean `first_name`? "));
}
