//! Types in words, and examples of them.
//!
//! Data: the JSON Schemas of an OpenAPI document. A type that has a name is a link to it; one that is made of others
//! is told in one line.

use serde_json::{Map, Value, json};

use super::prose::line;
use crate::dashboard::query::escaped;

/// How deep examples go.
const DEEP: usize = 4;

/// A field of an object.
pub struct Field {
    pub name: String,
    /// HTML.
    pub kind: String,
    pub required: bool,
    /// HTML.
    pub about: String,
}

/// The schemas that have names.
pub struct Schemas<'a>(pub &'a Map<String, Value>);

/// As a part of an address within the page.
pub fn anchor(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let text: String = text.chars().map(plain).collect();
    text.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

fn name_of(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.rsplit('/').next()
}

/// The alternatives or parts of a schema.
fn parts(schema: &Value) -> impl Iterator<Item = &Value> {
    ["allOf", "oneOf", "anyOf"].into_iter().filter_map(|how| schema[how].as_array()).flatten()
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A type in words, as HTML.
pub fn kind(schema: &Value) -> String {
    if let Some(name) = name_of(schema) {
        return format!("<a href=\"#type-{}\">{}</a>", anchor(name), escaped(name));
    }
    let joined: Vec<String> = parts(schema).map(kind).filter(|kind| !kind.is_empty()).collect();
    if !joined.is_empty() {
        return joined.join(" or ");
    }
    if let Some(values) = schema["enum"].as_array() {
        let values = values.iter().map(|value| format!("<code>{}</code>", escaped(&plain(value))));
        return values.collect::<Vec<_>>().join(" ");
    }
    let words = types(schema).into_iter().map(|one| match one {
        "array" => format!("list of {}", kind(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("object of {}", kind(&schema["additionalProperties"]))
        }
        "string" => match schema["format"].as_str() {
            Some("date-time") => String::from("time"),
            Some("binary") => String::from("file"),
            _ => String::from("string"),
        },
        other => escaped(other),
    });
    words.collect::<Vec<_>>().join(" or ")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Schemas<'_> {
    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        name_of(schema).and_then(|name| self.0.get(name)).unwrap_or(schema)
    }

    /// The fields of an object, those of its parts included.
    pub fn fields(&self, schema: &Value) -> Vec<Field> {
        let mut fields = Vec::new();
        for part in schema["allOf"].as_array().into_iter().flatten() {
            fields.extend(self.fields(self.resolve(part)));
        }
        let required = schema["required"].as_array();
        let is_required =
            |name: &str| required.is_some_and(|all| all.iter().any(|one| one == name));
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let mut about = field["description"].as_str().map(line).unwrap_or_default();
            if let Some(default) = field.get("default") {
                about = format!("{about} Default: <code>{}</code>.", escaped(&plain(default)));
            }
            fields.push(Field {
                name: name.clone(),
                kind: kind(field),
                required: is_required(name),
                about,
            });
        }
        fields
    }

    /// An example: of an object what is required of it, or all where nothing is.
    pub fn example(&self, schema: &Value) -> Value {
        self.example_in(schema, DEEP)
    }

    fn example_in(&self, schema: &Value, deep: usize) -> Value {
        let given = schema.get("example").or_else(|| schema["examples"].get(0));
        if let Some(given) = given.or_else(|| schema.get("const")) {
            return given.clone();
        }
        if deep == 0 {
            return Value::Null;
        }
        if name_of(schema).is_some() {
            let found = self.resolve(schema);
            return if found == schema { Value::Null } else { self.example_in(found, deep - 1) };
        }
        if let Some(all) = schema["allOf"].as_array() {
            let mut whole = Map::new();
            for part in all {
                if let Value::Object(part) = self.example_in(part, deep - 1) {
                    whole.extend(part);
                }
            }
            return Value::Object(whole);
        }
        if let Some(first) = parts(schema).find(|part| types(part) != ["null"]) {
            return self.example_in(first, deep - 1);
        }
        if let Some(first) = schema["enum"].get(0) {
            return first.clone();
        }
        match types(schema).first().copied() {
            Some("string") => match schema["format"].as_str() {
                Some("date-time") => json!("2030-01-31T12:00:00Z"),
                _ => json!("…"),
            },
            Some("integer" | "number") => schema["minimum"].as_i64().map_or(json!(1), Value::from),
            Some("boolean") => json!(true),
            Some("array") => Value::Array(vec![self.example_in(&schema["items"], deep - 1)]),
            Some("object") => self.object(schema, deep),
            _ => Value::Null,
        }
    }

    fn object(&self, schema: &Value, deep: usize) -> Value {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = schema["properties"].as_object().into_iter().flatten();
        let wanted =
            properties.filter(|(name, _)| required.is_empty() || required.contains(&name.as_str()));
        let of =
            |(name, field): (&String, &Value)| (name.clone(), self.example_in(field, deep - 1));
        wanted.map(of).collect::<Map<String, Value>>().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_and_shown() {
        let named = json!({
            "One": { "type": "object", "required": ["a"], "properties": {
                "a": { "type": "string", "example": "x", "description": "An `a`." },
                "b": { "type": ["integer", "null"], "default": 5 },
            } },
        });
        let named = named.as_object().unwrap();
        let schemas = Schemas(named);
        let of = |schema: Value| kind(&schema);
        assert_eq!(of(json!({ "type": ["string", "null"] })), "string or null");
        let reference = json!({ "$ref": "#/components/schemas/One" });
        assert_eq!(
            of(json!({ "type": "array", "items": reference })),
            "list of <a href=\"#type-one\">One</a>"
        );
        assert_eq!(
            of(json!({ "type": "string", "enum": ["a", "b"] })),
            "<code>a</code> <code>b</code>"
        );
        assert_eq!(schemas.example(&reference), json!({ "a": "x" }));
        let fields = schemas.fields(&named["One"]);
        assert!(fields[0].required && !fields[1].required);
        assert_eq!(fields[0].about, "An <code>a</code>.");
        assert_eq!(fields[1].about, " Default: <code>5</code>.");
        let itself = json!({ "$ref": "#/components/schemas/Nobody" });
        assert_eq!(schemas.example(&itself), Value::Null);
    }

    #[test]
    fn anchors_are_plain() {
        assert_eq!(anchor("GET /v1/tasks/{id}"), "get-v1-tasks-id");
        assert_eq!(anchor("Page_TaskView"), "page-taskview");
    }
}
