//! `commands catalog`: the catalog as a person reads it.
//!
//! Straight from the table, through the same description the admin API gives.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use schema::catalog::{CATALOG, find};
use serde_json::Value;

use super::output::{self, Format, shown, text};

/// Prints all commands, or one of them in full.
pub(super) fn print(request_type: Option<&str>, format: Format) -> anyhow::Result<()> {
    let Some(request_type) = request_type else {
        return all(format);
    };
    let folded = request_type.replace('_', "");
    let row = find(request_type).or_else(|| {
        CATALOG
            .iter()
            .find(|row| row.request_type.eq_ignore_ascii_case(&folded))
    });
    let row = match row {
        Some(row) => row.describe(),
        None => bail!("the catalog has no command {request_type}; `commands catalog` lists them"),
    };
    if format.json {
        return output::json(&row);
    }
    one(&row)
}

fn all(format: Format) -> anyhow::Result<()> {
    let rows: Vec<_> = CATALOG.iter().map(|row| row.describe()).collect();
    if format.json {
        return output::json(&rows);
    }
    let rows = rows.iter().map(|row| {
        vec![
            text(row, "/request_type"),
            remarks(row),
            list(row, "/platforms", |on| {
                format!("{} {}", text(on, "/platform"), text(on, "/min_os"))
            }),
            list(row, "/keys", |key| {
                let required = if key["required"] == true { "*" } else { "" };
                format!("{}{required}", text(key, "/json"))
            }),
        ]
    });
    output::table(
        &["TYPE", "REMARKS", "FROM", "KEYS (* needed)"],
        rows.collect(),
        "",
    )?;
    Ok(())
}

fn one(row: &Value) -> anyhow::Result<()> {
    let mut facts = vec![("type", text(row, "/request_type")), ("", remarks(row))];
    let platforms = row["platforms"].as_array().context("no platforms")?;
    for on in platforms {
        facts.push(("platform", platform(on)));
    }
    if platforms.iter().any(|on| on["platform"] == "macOS") {
        facts.push(("macOS channels", channels(&row["mac_channels"])));
    }
    if platforms.iter().any(|on| on["platform"] == "iOS") {
        facts.push(("Shared iPad", shared_ipad(&row["shared_ipad"])));
    }
    facts.push(("one needed of", text(row, "/one_of")));
    output::facts(facts)?;
    let mut rows = Vec::new();
    keys("", &row["keys"], &mut rows);
    if rows.is_empty() {
        return Ok(output::say("\nIt has no keys.")?);
    }
    output::say("")?;
    Ok(output::table(&["KEY", "APPLE", "KIND", ""], rows, "")?)
}

fn platform(on: &Value) -> String {
    let mut words = vec![format!("{} {}", text(on, "/platform"), text(on, "/min_os"))];
    let removed = text(on, "/removed_in");
    if !removed.is_empty() {
        words.push(format!("until {removed}"));
    }
    for (pointer, word) in [
        ("/supervised", "supervised"),
        ("/ade_only", "automated enrollment only"),
        ("/user_enrollment", "user enrollment too"),
    ] {
        if on.pointer(pointer) == Some(&Value::Bool(true)) {
            words.push(word.to_owned());
        }
    }
    let rights = text(on, "/rights");
    if !rights.is_empty() {
        words.push(format!("right {rights}"));
    }
    words.join(", ")
}

fn channels(of: &Value) -> String {
    let named = ["device", "user"];
    let has: Vec<_> = named.into_iter().filter(|name| of[*name] == true).collect();
    has.join(", ")
}

fn shared_ipad(of: &Value) -> String {
    match of.as_object().and_then(|of| of.iter().next()) {
        Some((how, on)) => format!("{how}: {}", channels(on)),
        None => shown(of),
    }
}

fn remarks(row: &Value) -> String {
    let mut words = BTreeSet::new();
    for word in ["destructive", "urgent"] {
        if row[word] == true {
            words.insert(word.to_owned());
        }
    }
    let danger = text(row, "/danger").replace('_', " ");
    if danger != "none" {
        words.insert(danger);
    }
    words.into_iter().collect::<Vec<_>>().join(", ")
}

/// A line for each key, those within it below.
fn keys(within: &str, of: &Value, rows: &mut Vec<Vec<String>>) {
    for key in of.as_array().into_iter().flatten() {
        let name = format!("{within}{}", text(key, "/json"));
        let needed = if key["required"] == true {
            "needed"
        } else {
            ""
        };
        rows.push(vec![
            name.clone(),
            text(key, "/name"),
            kind(key),
            needed.to_owned(),
        ]);
        inner(&name, key, rows);
    }
}

fn inner(name: &str, of: &Value, rows: &mut Vec<Vec<String>>) {
    keys(&format!("{name}."), &of["keys"], rows);
    if of["of"].is_object() {
        inner(&format!("{name}[]"), &of["of"], rows);
    }
    for item in of["items"].as_array().into_iter().flatten() {
        let item_name = text(item, "/item");
        rows.push(vec![
            format!("{name}.item={item_name}"),
            item_name.clone(),
            "item".to_owned(),
            text(item, "/rights"),
        ]);
        keys(&format!("{name}.({item_name})."), &item["keys"], rows);
    }
}

fn kind(of: &Value) -> String {
    let mut words = text(of, "/kind");
    if of["of"].is_object() {
        words = format!("list of {}", kind(&of["of"]));
    }
    for (pointer, word) in [
        ("/values", "one of"),
        ("/digits", "digits:"),
        ("/min", "from"),
        ("/max", "to"),
        ("/max_bytes", "bytes at most:"),
    ] {
        let bound = text(of, pointer);
        if !bound.is_empty() {
            words = format!("{words}, {word} {bound}");
        }
    }
    words
}

fn list(of: &Value, pointer: &str, word: impl Fn(&Value) -> String) -> String {
    let items = of.pointer(pointer).and_then(Value::as_array);
    let words: Vec<_> = items.into_iter().flatten().map(word).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_within_keys_are_listed_with_their_path() {
        let mut rows = Vec::new();
        let erase = find("EraseDevice").unwrap().describe();
        keys("", &erase["keys"], &mut rows);
        let row = |name: &str| rows.iter().find(|row| row[0] == name).unwrap();
        assert_eq!(row("pin")[2], "string, digits: 6");
        assert_eq!(row("return_to_service.enabled")[3], "needed");
        assert_eq!(remarks(&erase), "destructive, erases, urgent");
        let mut rows = Vec::new();
        let settings = find("Settings").unwrap().describe();
        keys("", &settings["keys"], &mut rows);
        assert!(rows.iter().any(|row| row[2] == "item"), "{rows:?}");
    }

    #[test]
    fn every_command_can_be_read() {
        for row in CATALOG {
            let row = row.describe();
            for on in row["platforms"].as_array().unwrap() {
                assert!(platform(on).contains(' '), "{row}");
            }
            assert!(!shared_ipad(&row["shared_ipad"]).is_empty(), "{row}");
        }
    }
}
