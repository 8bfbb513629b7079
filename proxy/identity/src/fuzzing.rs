//! Doors for the fuzz targets (`tests/fuzz`): what they must see and nobody else needs.

use serde_json::Value;

use crate::keys::KeySet;

/// The usable keys of a JWKS document as they would be kept on disk, and how many entries are skipped.
///
/// # Errors
/// Why the document is refused, in words.
pub fn usable_keys(document: &[u8], most: usize) -> Result<(Value, usize), String> {
    let keys = KeySet::parse(document, most).map_err(|error| error.to_string())?;
    Ok((keys.to_json(), keys.skipped()))
}
