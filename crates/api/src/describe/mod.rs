//! What the interface says of itself: an OpenAPI 3.1 document, and the same as a page to read. Both
//! are made from [`crate::operations`] and the types in [`crate::document`].

mod openapi;
mod reference;

use std::sync::OnceLock;

use http::{HeaderValue, StatusCode};

use crate::error::Refusal;
use crate::respond::{JSON, Style, Written};

pub use openapi::openapi;
pub use reference::reference;

/// Both, written once, plain and compressed: they are open to everybody, and the same for everybody.
#[derive(Default)]
pub struct Described {
    document: [OnceLock<Written>; 2],
    page: [OnceLock<Written>; 2],
}

impl Described {
    /// The URL in it is `base`.
    pub fn document(&self, base: &str, style: Style) -> Result<Written, Refusal> {
        once(&self.document, style, JSON, || openapi(base).to_string())
    }

    pub fn page(&self, style: Style) -> Result<Written, Refusal> {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        once(&self.page, style, html, || reference(&openapi("/")))
    }
}

fn once(
    places: &[OnceLock<Written>; 2],
    style: Style,
    media_type: HeaderValue,
    text: impl FnOnce() -> String,
) -> Result<Written, Refusal> {
    let place = &places[usize::from(style.gzip)];
    if let Some(written) = place.get() {
        return Ok(written.clone());
    }
    let written = style.written(StatusCode::OK, media_type, text().into_bytes())?;
    Ok(place.get_or_init(|| written).clone())
}
