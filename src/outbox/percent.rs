//! Attribute values as headers: percent-encoding as the bindings of CloudEvents say, and back.
//!
//! The rule stands in section 3.1.3.2 of the NATS and of the HTTP protocol binding. It is that of neither a URL nor
//! [`AggregateId`](crate::subject::AggregateId).

use std::borrow::Cow;

/// A value as it stands in a header: space, `"`, `%` and whatever is not printable ASCII is `%XX`.
pub(super) fn encode(value: &str) -> Cow<'_, str> {
    let stands = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'%';
    if value.bytes().all(stands) {
        return Cow::Borrowed(value);
    }
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(value.len() * 3);
    for byte in value.bytes() {
        if stands(byte) {
            text.push(char::from(byte));
        } else {
            let digits = [b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
            text.extend(digits.map(char::from));
        }
    }
    Cow::Owned(text)
}

/// The value that a header stands for; `None` when it is none.
///
/// One round only. Quotes around a value, which older writers used, are removed first.
pub(super) fn decode(header: &str) -> Option<String> {
    let header = unquote(header.trim())?;
    let mut bytes = Vec::with_capacity(header.len());
    let mut rest = header.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => digit(rest.next()?)? << 4 | digit(rest.next()?)?,
            byte => byte,
        });
    }
    // Overlong forms are no UTF-8 and are refused with all else that is none.
    String::from_utf8(bytes).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn unquote(text: &str) -> Option<Cow<'_, str>> {
    let Some(inner) = text.strip_prefix('"') else { return Some(Cow::Borrowed(text)) };
    let mut value = String::with_capacity(inner.len());
    let mut rest = inner.chars();
    loop {
        match rest.next()? {
            '"' => return rest.next().is_none().then_some(Cow::Owned(value)),
            '\\' => value.push(rest.next()?),
            other => value.push(other),
        }
    }
}
