//! The settings reference of the README, generated from the settings type.

use std::fmt::Write as _;

use serde_json::Value;

use super::Settings;

/// A Markdown table of every setting: path, type, default, meaning. A test holds the README to it.
#[must_use]
pub fn reference() -> String {
    let schema = serde_json::to_value(schemars::schema_for!(Settings)).unwrap_or(Value::Null);
    let mut out = String::from("| setting | type | default | meaning |\n|---|---|---|---|\n");
    let mut walk = Walk { root: &schema, out: &mut out };
    walk.object(&schema, "", &Value::Null);
    out
}

struct Walk<'a> {
    root: &'a Value,
    out: &'a mut String,
}

impl<'a> Walk<'a> {
    fn object(&mut self, schema: &'a Value, prefix: &str, defaults: &Value) {
        let Some(properties) = schema["properties"].as_object() else { return };
        for (name, property) in properties {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            let required =
                schema["required"].as_array().is_some_and(|list| list.contains(&Value::from(name.as_str())));
            let given = property.get("default").or_else(|| defaults.get(name));
            self.property(property, &path, required, given.unwrap_or(&Value::Null));
        }
    }

    fn property(&mut self, property: &'a Value, path: &str, required: bool, default: &Value) {
        let target = self.resolve(property);
        let meaning = property["description"].as_str().or(target["description"].as_str()).unwrap_or("");
        let shown = if required {
            "required".to_owned()
        } else if default.is_null() || default.is_object() {
            "–".to_owned()
        } else {
            format!("`{default}`")
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            self.out,
            "| `{path}` | {} | {shown} | {} |",
            self.type_name(target),
            meaning.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|"),
        );
        if target["properties"].is_object() {
            self.object(target, path, default);
        } else if let Some(items) = target.get("items") {
            self.object(self.resolve(items), &format!("{path}[]"), &Value::Null);
        }
    }

    /// Follows `$ref`, and the one real alternative of an optional value.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            return &self.root["$defs"][name];
        }
        let real = |list: &'a Value| list.as_array()?.iter().find(|option| option["type"] != "null");
        match real(&schema["anyOf"]).or_else(|| real(&schema["allOf"])) {
            Some(option) => self.resolve(option),
            None => schema,
        }
    }

    fn type_name(&self, schema: &'a Value) -> String {
        if let Some(values) = schema["enum"].as_array().or(schema["oneOf"].as_array()) {
            let names: Vec<String> = values
                .iter()
                .filter_map(|value| value.as_str().or(value["const"].as_str()))
                .map(|name| format!("`{name}`"))
                .collect();
            return names.join(", ");
        }
        let plain = |name: &str| match name {
            "array" => format!("list of {}", self.type_name(self.resolve(&schema["items"]))),
            "object" if schema["additionalProperties"].is_object() => "map".to_owned(),
            "integer" => "whole number".to_owned(),
            "boolean" => "`true`, `false`".to_owned(),
            "string" => "text".to_owned(),
            other => other.to_owned(),
        };
        match &schema["type"] {
            Value::String(name) => plain(name),
            Value::Array(names) => names
                .iter()
                .filter_map(Value::as_str)
                .find(|name| *name != "null")
                .map_or_else(String::new, plain),
            _ => String::new(),
        }
    }
}
