//! What a panic said, for those who call code of a service and must outlive it.

use std::any::Any;

/// The text of a panic, as far as it has one.
pub(crate) fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a text").to_owned()
}
