//! How a record and a blob look when they are sealed.

pub(crate) mod record;
pub(crate) mod scope;
pub(crate) mod stream;
