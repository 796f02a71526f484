//! The OpenAPI document as a page: static, no script, nothing from another host.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

const STYLE: &str = "
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h2 { margin-top: 3rem; border-bottom: 1px solid #ccc; }
h3 { margin-top: 2rem; font-size: 1rem; }
code { font: 0.9em ui-monospace, monospace; background: #f3f3f3; padding: 0 0.2em; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top; padding: 0.2rem 1rem 0.2rem 0; border-bottom: 1px solid #eee; }
.method { font-weight: bold; } nav ul { columns: 2; padding-left: 1rem; }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd; } code { background: #2a2a2a; } a { color: #8bf; } td, th { border-color: #333; } }
";

/// `document` is what [`super::openapi`] gives.
pub fn reference(document: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let tags: Vec<_> = items(&document["tags"]).map(|tag| text(&tag["name"])).collect();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (text(&document["info"]["title"])) " API" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (text(&document["info"]["title"])) " API " (text(&document["info"]["version"])) }
                p { (prose(&text(&document["info"]["description"]))) }
                p { "For programs: " a href="/api/openapi.json" { "openapi.json" } "." }
                h2 { "Who asks" }
                table { @for (name, scheme) in members(&document["components"]["securitySchemes"]) {
                    tr { td { code { (name) } } td { (prose(&text(&scheme["description"]))) } }
                } }
                nav { h2 { "Operations" } @for tag in &tags {
                    h3 { (tag) }
                    ul { @for (path, method, operation) in operations(document, tag) {
                        li { a href={ "#" (text(&operation["operationId"])) } { (method) " " (path) } }
                    } }
                } }
                @for tag in &tags {
                    h2 { (tag) }
                    @for (path, method, operation) in operations(document, tag) { (operation_section(path, &method, operation)) }
                }
                h2 { "Documents" }
                @for (name, schema) in members(&document["components"]["schemas"]) {
                    h3 id={ "document-" (name) } { (name) }
                    p { (prose(&text(&schema["description"]))) }
                    (fields(schema))
                }
            }
        }
    };
    page.into_string()
}

fn operation_section(path: &str, method: &str, operation: &Value) -> Markup {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    html! {
        h3 id=(text(&operation["operationId"])) { (text(&operation["summary"])) }
        p { span.method { (method) } " " code { (path) } }
        p { (prose(&text(&operation["description"]))) }
        @if items(&operation["parameters"]).next().is_some() {
            table {
                tr { th { "Parameter" } th { "In" } th { "Type" } th { "" } }
                @for parameter in items(&operation["parameters"]) {
                    tr {
                        td { code { (text(&parameter["name"])) } }
                        td { (text(&parameter["in"])) }
                        td { (kind(&parameter["schema"])) }
                        td {
                            (prose(&text(&parameter["description"])))
                            @if !parameter["schema"]["default"].is_null() {
                                " Default: " code { (parameter["schema"]["default"].to_string()) } "."
                            }
                        }
                    }
                }
            }
        }
        @for (media_type, content) in members(&operation["requestBody"]["content"]) {
            p { "Body, " code { (media_type) } ". " (prose(&text(&content["schema"]["description"]))) }
            (fields(&content["schema"]))
        }
        table {
            tr { th { "Status" } th { "" } th { "Document" } }
            @for (status, response) in members(&operation["responses"]) {
                tr {
                    td { (status) }
                    td { (prose(&text(&response["description"]))) }
                    td { @for (media_type, content) in members(&response["content"]) {
                        (kind(&content["schema"]["anyOf"][0])) (kind(&content["schema"])) " "
                        @if media_type != "application/json" { code { (media_type) } }
                    } }
                }
            }
        }
    }
}

fn fields(schema: &Value) -> Markup {
    html! {
        @if members(&schema["properties"]).next().is_some() {
            table {
                tr { th { "Field" } th { "Type" } th { "" } }
                @for (name, field) in members(&schema["properties"]) {
                    tr {
                        td { code { (name) } }
                        td { (kind(field)) }
                        td { (prose(field["description"].as_str().unwrap_or_default())) }
                    }
                }
            }
        }
    }
}

/// What a value is, in a few words.
fn kind(schema: &Value) -> Markup {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return html! { a href={ "#document-" (name) } { (name) } };
    }
    if let Some(allowed) = schema["enum"].as_array() {
        return html! { (allowed.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")) };
    }
    match (schema["type"].as_str(), schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
        (Some("array"), ..) => html! { "list of " (kind(&schema["items"])) },
        (Some("integer"), Some(least), Some(most)) => html! { (least) " to " (most) },
        (Some(kind), ..) => html! { (schema["format"].as_str().unwrap_or(kind)) },
        _ => html! {},
    }
}

/// Text with `code` in it.
fn prose(text: &str) -> Markup {
    html! { @for (at, piece) in text.split('`').enumerate() {
        @if at % 2 == 1 { code { (piece) } } @else { (piece) }
    } }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn operations<'a>(document: &'a Value, tag: &'a str) -> impl Iterator<Item = (&'a String, String, &'a Value)> {
    members(&document["paths"]).flat_map(move |(path, methods)| {
        members(methods)
            .filter(move |(_, operation)| operation["tags"][0] == tag)
            .map(move |(method, operation)| (path, method.to_ascii_uppercase(), operation))
    })
}
