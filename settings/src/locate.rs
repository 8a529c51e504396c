//! Where in the text a key is, and which key a place of the text belongs to.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// Line and column of a byte offset, both from 1; the column counts characters.
pub(crate) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// A key of the document: its dotted path and where it and its value stand.
struct Entry {
    path: String,
    name: String,
    key: Range<usize>,
    value: Range<usize>,
}

/// The key that a span belongs to: its dotted path and its last part. A span that is the key itself wins over one
/// inside a value; of several values the innermost wins.
pub(crate) fn key_at(text: &str, span: &Range<usize>) -> Option<(String, String)> {
    let entries = entries(text);
    let named = entries.iter().find(|entry| entry.key == *span);
    let holder = || {
        entries
            .iter()
            .filter(|entry| entry.value.start <= span.start && span.end <= entry.value.end)
            .min_by_key(|entry| (entry.value.len(), std::cmp::Reverse(entry.path.len())))
    };
    named.or_else(holder).map(|entry| (entry.path.clone(), entry.name.clone()))
}

/// The byte offset of the key with this dotted path, or of its nearest ancestor that stands in the text.
pub(crate) fn offset_of(text: &str, path: &str) -> Option<usize> {
    let entries = entries(text);
    let mut wanted = path;
    loop {
        if let Some(entry) = entries.iter().find(|entry| entry.path == wanted) {
            // An entry of a list has no key of its own: its value is the place.
            return Some(if entry.key.is_empty() { entry.value.start } else { entry.key.start });
        }
        wanted = wanted.rsplit_once('.')?.0;
    }
}

fn entries(text: &str) -> Vec<Entry> {
    let mut found = Vec::new();
    if let Ok(document) = DeTable::parse(text) {
        collect_table(document.get_ref(), "", &mut found);
    }
    found
}

fn collect_table(table: &DeTable<'_>, prefix: &str, found: &mut Vec<Entry>) {
    for (key, value) in table {
        let name = key.get_ref().to_string();
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        found.push(Entry { path: path.clone(), name, key: key.span(), value: value.span() });
        collect_value(value.get_ref(), &path, found);
    }
}

fn collect_value(value: &DeValue<'_>, path: &str, found: &mut Vec<Entry>) {
    match value {
        DeValue::Table(table) => collect_table(table, path, found),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let span = item.span();
                let entry_path = format!("{path}.{index}");
                found.push(Entry {
                    path: entry_path.clone(),
                    name: index.to_string(),
                    key: span.start..span.start,
                    value: span,
                });
                collect_value(item.get_ref(), &entry_path, found);
            }
        }
        _ => {}
    }
}
