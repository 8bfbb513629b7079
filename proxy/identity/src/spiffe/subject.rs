//! A certificate's subject as Envoy writes it: RFC 2253, by OpenSSL's `X509_NAME_print_ex` with
//! `XN_FLAG_RFC2253`. What comes out is printable ASCII, with nothing left that would end a quoted text.

use std::fmt::Write;

use x509_parser::{
    asn1_rs::{Any, Tag},
    x509::{AttributeTypeAndValue, X509Name},
};

/// Kinds of names that have a short one (OpenSSL's); others are written as numbers, and their values as DER.
const SHORT: [(&str, &str); 25] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.44", "generationQualifier"),
    ("2.5.4.45", "x500UniqueIdentifier"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.51", "houseIdentifier"),
    ("2.5.4.65", "pseudonym"),
    ("2.5.4.72", "role"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// The last name first (RFC 2253 §2.1), names of one set joined by `+`.
pub(super) fn rfc2253(name: &X509Name<'_>) -> String {
    let sets: Vec<Vec<_>> = name.iter_rdn().map(|set| set.iter().collect()).collect();
    let mut text = String::new();
    for set in sets.iter().rev() {
        for (at, attribute) in set.iter().rev().enumerate() {
            match (at, text.is_empty()) {
                (0, true) => {}
                (0, false) => text.push(','),
                _ => text.push('+'),
            }
            write_attribute(&mut text, attribute);
        }
    }
    text
}

fn write_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let kind = attribute.attr_type().to_id_string();
    let short = SHORT.iter().find(|(id, _)| *id == kind).map(|(_, short)| *short);
    text.push_str(short.unwrap_or(&kind));
    text.push('=');
    match short.and_then(|_| characters(attribute.attr_value())) {
        Some(value) => write_escaped(text, &value),
        None => write_der(text, attribute.attr_value()),
    }
}

/// What a value says, where it is of a kind of text that OpenSSL reads.
fn characters(value: &Any<'_>) -> Option<String> {
    let bytes: &[u8] = value.data;
    match value.tag() {
        Tag::Utf8String => String::from_utf8(bytes.to_vec()).ok(),
        // One byte, one character.
        Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::T61String | Tag::VisibleString => {
            Some(bytes.iter().copied().map(char::from).collect())
        }
        Tag::BmpString => {
            let units = bytes.chunks(2).map(|pair| match pair {
                [high, low] => Some(u16::from_be_bytes([*high, *low])),
                _ => None,
            });
            String::from_utf16(&units.collect::<Option<Vec<_>>>()?).ok()
        }
        _ => None,
    }
}

/// RFC 2253 §2.4, with OpenSSL's `ESC_CTRL` and `ESC_MSB`.
fn write_escaped(text: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => text.extend(['\\', char::from(byte)]),
            b'#' if at == 0 => text.push_str("\\#"),
            b' ' if at == 0 || at == last => text.push_str("\\ "),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                // Writing to a string does not fail.
                let _ = write!(text, "\\{byte:02X}");
            }
        }
    }
}

fn write_der(text: &mut String, value: &Any<'_>) {
    use x509_parser::asn1_rs::ToDer;
    text.push('#');
    for byte in value.to_der_vec().unwrap_or_default() {
        let _ = write!(text, "{byte:02X}");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use x509_parser::prelude::FromDer;

    use super::*;

    /// Kind, tag, value.
    type Attribute<'a> = (&'a [u8], u8, &'a [u8]);

    /// A name of DER: sets of attributes.
    fn name(sets: &[&[Attribute<'_>]]) -> String {
        let wrap = |tag: u8, inside: Vec<u8>| {
            let mut der = vec![tag, u8::try_from(inside.len()).unwrap()];
            der.extend(inside);
            der
        };
        let attribute = |(kind, tag, value): &Attribute<'_>| {
            wrap(0x30, [wrap(6, kind.to_vec()), wrap(*tag, value.to_vec())].concat())
        };
        let set = |set: &&[Attribute<'_>]| wrap(0x31, set.iter().flat_map(attribute).collect());
        let der = wrap(0x30, sets.iter().flat_map(set).collect());
        rfc2253(&X509Name::from_der(&der).unwrap().1)
    }

    const CN: &[u8] = &[0x55, 4, 3];
    const O: &[u8] = &[0x55, 4, 10];

    #[test]
    fn what_would_end_the_quoted_text_is_escaped() {
        assert_eq!(name(&[&[(CN, 12, b"a\";URI=spiffe://x;\"")]]), "CN=a\\\"\\;URI=spiffe://x\\;\\\"");
        assert_eq!(name(&[&[(CN, 12, b"\\")]]), "CN=\\\\");
        assert_eq!(name(&[&[(CN, 12, "\r\n\0\u{7f}\u{e4}".as_bytes())]]), "CN=\\0D\\0A\\00\\7F\\C3\\A4");
    }

    #[test]
    fn the_last_comes_first_and_sets_are_joined() {
        assert_eq!(
            name(&[&[(O, 19, b"one")], &[(CN, 19, b"two"), (O, 19, b"three")]]),
            "O=three+CN=two,O=one"
        );
        assert_eq!(name(&[]), "");
    }

    #[test]
    fn spaces_and_hashes_count_at_the_ends() {
        assert_eq!(name(&[&[(CN, 12, b" a b ")]]), "CN=\\ a b\\ ");
        assert_eq!(name(&[&[(CN, 12, b"#a#")]]), "CN=\\#a#");
        assert_eq!(name(&[&[(CN, 12, b" ")]]), "CN=\\ ");
    }

    #[test]
    fn unknown_kinds_and_values_are_written_as_der() {
        assert_eq!(name(&[&[(&[0x2a, 3, 4], 12, b"72")]]), "1.2.3.4=#0C023732");
        assert_eq!(name(&[&[(CN, 4, b"72")]]), "CN=#04023732");
        assert_eq!(name(&[&[(CN, 30, &[0, 0xe4])]]), "CN=\\C3\\A4");
    }
}
