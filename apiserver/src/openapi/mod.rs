//! `/openapi/v2` and `/openapi/v3`: the API described for clients. Nothing is kept as text: `schema` renders the types
//! of the schema, `resources` makes routes from the table of resources, `custom` does both for custom resources,
//! `foreign` takes in what aggregated servers say, `document` puts them together in JSON and in the messages of `gnostic`, and the `publisher` keeps the result.

pub mod custom;
pub mod descriptions;
mod document;
mod foreign;
mod gnostic;
pub mod publisher;
mod render;
mod resources;
mod routes;
mod schema;
mod serve;
mod structural;
mod texts;

pub use custom::CustomVersion;
pub use foreign::Foreign;
pub use publisher::Publisher;
pub use serve::serve;
