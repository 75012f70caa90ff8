//! One request as the seed's HTML table.

use crate::report::ReportError;
use crate::report::escape::{self, Place};
use crate::report::records::fields;
use ld_shared::record::Record;
use std::io::Write as _;

/// The table, with the line break behind it.
pub(super) fn of(record: &Record) -> Result<String, ReportError> {
    let failed = record.error.is_some();
    let mut table = Vec::new();
    write!(
        table,
        "<table class=\"main_table\">\n<thead>\n<tr><th colspan=\"2\" class=\"{}_table_head\">Test Report</th></tr>\n\
         </thead>\n<tbody>\n",
        if failed { "failure" } else { "success" }
    )?;
    fields(record, |name, value| {
        let title = if failed && name == "Method" { "http_method" } else { name };
        write!(table, "<tr><td class=\"table_data_field_title\">{title}</td><td class=\"table_data_field_text\">")?;
        escape::write(&mut table, &value.to_string(), Place::Html)?;
        table.write_all(b"</td></tr>\n")
    })?;
    table.extend_from_slice(b"</tbody>\n</table>\n<br>");
    Ok(String::from_utf8_lossy(&table).into_owned())
}
