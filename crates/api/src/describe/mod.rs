//! What the interface says of itself: an OpenAPI 3.1 document, and the same as a page to read. Both
//! are made from [`crate::operations`] and the types in [`crate::document`].

mod openapi;
mod reference;

pub use openapi::openapi;
pub use reference::reference;
