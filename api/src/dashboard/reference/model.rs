//! What the reference shows, read from the OpenAPI document: groups of operations, and the types that they name.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::prose::{blocks, line};
use super::schema::{Field, Schemas, anchor, kind};
use crate::dashboard::query::escaped;

/// Stands in samples for the address that the reader knows this server by.
const BASE: &str = "{base}";
const METHODS: [&str; 7] = ["get", "post", "put", "patch", "delete", "head", "options"];

/// The whole of it.
pub struct Reference {
    /// HTML.
    pub about: String,
    pub groups: Vec<Group>,
    pub types: Vec<Type>,
}

/// Operations that belong together.
pub struct Group {
    pub anchor: String,
    pub name: String,
    /// HTML.
    pub about: String,
    pub operations: Vec<Operation>,
}

/// What can be asked.
pub struct Operation {
    pub anchor: String,
    pub method: String,
    pub path: String,
    pub title: String,
    /// HTML.
    pub about: String,
    pub proof: Proof,
    /// Scopes of a key, or actions of a root key.
    pub scopes: Vec<String>,
    pub parameters: Vec<Parameter>,
    pub body: Option<Body>,
    pub answers: Vec<Answer>,
    sample: String,
}

/// What a caller has to show.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    Nothing,
    Key,
    RootKey,
}

/// A parameter.
pub struct Parameter {
    pub name: String,
    /// path, query or header.
    pub place: String,
    /// HTML.
    pub kind: String,
    pub required: bool,
    /// HTML.
    pub about: String,
}

/// What is sent, in one of several forms.
pub struct Body {
    /// HTML.
    pub about: String,
    pub forms: Vec<Form>,
}

/// A media type, and what is in it.
pub struct Form {
    pub media: String,
    /// HTML.
    pub kind: String,
    pub fields: Vec<Field>,
}

/// What comes back.
pub struct Answer {
    pub status: String,
    /// HTML.
    pub about: String,
    pub forms: Vec<Form>,
}

/// A type with a name.
pub struct Type {
    pub anchor: String,
    pub name: String,
    /// HTML.
    pub about: String,
    /// HTML; of what is no object.
    pub kind: String,
    pub fields: Vec<Field>,
}

impl Operation {
    /// A call from the shell, of the server at this address.
    pub fn sample(&self, base: &str) -> String {
        self.sample.replace(BASE, base)
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl Reference {
    /// Of this document.
    pub fn of(document: &Value) -> Self {
        let none = Map::new();
        let schemas = Schemas(document["components"]["schemas"].as_object().unwrap_or(&none));
        let mut groups: Vec<Group> = Vec::new();
        for tag in document["tags"].as_array().into_iter().flatten() {
            groups.push(Group::new(text(&tag["name"]), blocks(text(&tag["description"]))));
        }
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for method in METHODS {
                let Some(operation) = item.get(method) else { continue };
                let tag = text(&operation["tags"][0]);
                let usual = operation.get("security").unwrap_or(&document["security"]);
                let operation = read(&schemas, (method, path), operation, usual);
                match groups.iter_mut().find(|group| group.name == tag) {
                    Some(group) => group.operations.push(operation),
                    None => {
                        let mut group = Group::new(tag, String::new());
                        group.operations.push(operation);
                        groups.push(group);
                    }
                }
            }
        }
        groups.retain(|group| !group.operations.is_empty());
        let types = schemas.0.iter().map(|(name, schema)| {
            let fields = schemas.fields(schema);
            Type {
                anchor: format!("type-{}", anchor(name)),
                name: name.clone(),
                about: blocks(text(&schema["description"])),
                kind: if fields.is_empty() { kind(schema) } else { String::new() },
                fields,
            }
        });
        let about = blocks(text(&document["info"]["description"]));
        Self { about, types: types.collect(), groups }
    }
}

impl Group {
    fn new(name: &str, about: String) -> Self {
        let anchor = format!("group-{}", anchor(name));
        Self { anchor, name: name.to_owned(), about, operations: Vec::new() }
    }
}

fn read(
    schemas: &Schemas<'_>,
    (method, path): (&str, &str),
    operation: &Value,
    security: &Value,
) -> Operation {
    let proofs = security.as_array().map(Vec::as_slice).unwrap_or_default();
    let (proof, scopes) = proof(proofs);
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let answers = operation["responses"].as_object().into_iter().flatten();
    let body = operation.get("requestBody").map(|body| Body {
        about: line(text(&body["description"])),
        forms: forms(schemas, &body["content"]),
    });
    let name = format!("{} {path}", method.to_ascii_uppercase());
    let title = match text(&operation["summary"]) {
        "" => name.clone(),
        title => title.to_owned(),
    };
    Operation {
        anchor: anchor(&name),
        method: method.to_ascii_uppercase(),
        path: path.to_owned(),
        title,
        about: blocks(text(&operation["description"])),
        proof,
        scopes,
        parameters: parameters
            .map(|one| Parameter {
                name: text(&one["name"]).to_owned(),
                place: text(&one["in"]).to_owned(),
                kind: kind(&one["schema"]),
                required: one["required"] == true,
                about: line(text(&one["description"])),
            })
            .collect(),
        body,
        answers: answers
            .map(|(status, one)| Answer {
                status: status.clone(),
                about: line(text(&one["description"])),
                forms: forms(schemas, &one["content"]),
            })
            .collect(),
        sample: sample(schemas, (method, path), operation, proof),
    }
}

/// What has to be shown, and which scopes it needs; of several ways, the first.
fn proof(ways: &[Value]) -> (Proof, Vec<String>) {
    let way = ways.iter().filter_map(|way| way.as_object()?.iter().next()).next();
    let Some((scheme, scopes)) = way else { return (Proof::Nothing, Vec::new()) };
    let scopes = scopes.as_array().into_iter().flatten().map(|one| text(one).to_owned()).collect();
    let proof = if scheme == "root_key" { Proof::RootKey } else { Proof::Key };
    (proof, scopes)
}

fn forms(schemas: &Schemas<'_>, content: &Value) -> Vec<Form> {
    let form = |(media, about): (&String, &Value)| Form {
        media: media.clone(),
        kind: kind(&about["schema"]),
        // What has a name is shown with its fields further below.
        fields: schemas.fields(&about["schema"]),
    };
    content.as_object().into_iter().flatten().map(form).collect()
}

fn sample(
    schemas: &Schemas<'_>,
    (method, path): (&str, &str),
    operation: &Value,
    proof: Proof,
) -> String {
    let mut url = format!("{BASE}{}", path.replace('{', "$").replace('}', ""));
    let mut joint = '?';
    for one in operation["parameters"].as_array().into_iter().flatten() {
        if one["in"] == "query" && one["required"] == true {
            let name = text(&one["name"]);
            let _ = write!(url, "{joint}{name}=${}", name.to_ascii_uppercase());
            joint = '&';
        }
    }
    let mut call = match method {
        "get" => format!("curl \"{url}\""),
        method => format!("curl -X {} \"{url}\"", method.to_ascii_uppercase()),
    };
    match proof {
        Proof::Nothing => {}
        Proof::Key => call.push_str(" \\\n  -H \"Authorization: Bearer $LISTMILL_KEY\""),
        Proof::RootKey => call.push_str(" \\\n  -H \"Authorization: Bearer $LISTMILL_ROOT_KEY\""),
    }
    let first = operation["requestBody"]["content"].as_object().and_then(|all| all.iter().next());
    let Some((media, about)) = first else { return call };
    if media.starts_with("multipart/") {
        call.push_str(" \\\n  -F file=@list.csv");
        return call;
    }
    let _ = write!(call, " \\\n  -H \"Content-Type: {media}\"");
    if media.ends_with("json") {
        let example = about.get("example").cloned();
        let example = example.unwrap_or_else(|| schemas.example(&about["schema"]));
        let _ = write!(call, " \\\n  -d '{}'", example.to_string().replace('\'', "'\\''"));
    } else {
        call.push_str(" \\\n  --data-binary @list.csv");
    }
    call
}

/// A type of a form as HTML, with its media type.
impl Form {
    /// In one line.
    pub fn line(&self) -> String {
        format!("<code>{}</code> {}", escaped(&self.media), self.kind)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_operation_is_read_whole() {
        let document = json!({
            "info": { "description": "All of it." },
            "security": [{ "bearer": [] }],
            "tags": [{ "name": "tasks", "description": "Lists." }, { "name": "none" }],
            "components": { "schemas": { "Body": { "type": "object", "required": ["email"],
                "properties": { "email": { "type": "string", "example": "o'neil@a.example" } } } } },
            "paths": {
                "/v1/tasks/{id}": { "post": {
                    "tags": ["tasks"], "summary": "Do", "security": [{ "bearer": ["tasks:write"] }],
                    "parameters": [{ "name": "id", "in": "path", "required": true, "schema": { "type": "string" } }],
                    "requestBody": { "content": { "application/json": {
                        "schema": { "$ref": "#/components/schemas/Body" } } } },
                    "responses": { "200": { "description": "Done." } } } },
                "/healthz": { "get": { "tags": ["new"], "security": [{}], "responses": {} } },
            },
        });
        let reference = Reference::of(&document);
        let names: Vec<&str> = reference.groups.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(names, ["tasks", "new"]);
        let one = &reference.groups[0].operations[0];
        assert_eq!((one.anchor.as_str(), one.title.as_str()), ("post-v1-tasks-id", "Do"));
        assert_eq!(one.scopes, ["tasks:write"]);
        assert_eq!(
            one.sample("https://a.example"),
            "curl -X POST \"https://a.example/v1/tasks/$id\" \\\n  \
             -H \"Authorization: Bearer $LISTMILL_KEY\" \\\n  \
             -H \"Content-Type: application/json\" \\\n  \
             -d '{\"email\":\"o'\\''neil@a.example\"}'"
        );
        let health = &reference.groups[1].operations[0];
        assert!(health.proof == Proof::Nothing && health.title == "GET /healthz");
        assert_eq!(health.sample("http://x"), "curl \"http://x/healthz\"");
        assert_eq!(reference.types[0].fields.len(), 1);
    }
}
