//! The messages, as far as they are used here: field numbers of the SPIFFE Workload API §5.2.1
//! (`workload.proto`) and of istio.io/api `security/v1alpha1/ca.proto`. What is not listed is skipped.

use std::{collections::BTreeMap, fmt};

use zeroize::Zeroize;

/// `X509SVIDRequest`: says nothing.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(in super::super) struct X509SvidRequest {}

/// `X509SVIDResponse`: everything that the caller is entitled to, each time.
#[derive(prost::Message)]
pub(in super::super) struct X509SvidResponse {
    #[prost(message, repeated, tag = "1")]
    pub(in super::super) svids: Vec<X509Svid>,
    /// DER, one list each.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(in super::super) crl: Vec<Vec<u8>>,
    /// Foreign trust domains (`spiffe://name`) and their roots, DER one after the other.
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub(in super::super) federated_bundles: BTreeMap<String, Vec<u8>>,
}

/// `X509SVID`. Its key is wiped when it is dropped.
#[derive(prost::Message)]
#[prost(skip_debug)]
pub(in super::super) struct X509Svid {
    #[prost(string, tag = "1")]
    pub(in super::super) spiffe_id: String,
    /// DER one after the other, leaf first.
    #[prost(bytes = "vec", tag = "2")]
    pub(in super::super) x509_svid: Vec<u8>,
    /// PKCS#8, DER.
    #[prost(bytes = "vec", tag = "3")]
    pub(in super::super) x509_svid_key: Vec<u8>,
    /// Roots of its trust domain, DER one after the other.
    #[prost(bytes = "vec", tag = "4")]
    pub(in super::super) bundle: Vec<u8>,
}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "X509Svid({:?})", self.spiffe_id)
    }
}

impl Drop for X509Svid {
    fn drop(&mut self) {
        self.x509_svid_key.zeroize();
    }
}

/// `IstioCertificateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct IstioCertificateRequest {
    /// PEM.
    #[prost(string, tag = "1")]
    pub(in super::super) csr: String,
    /// Seconds.
    #[prost(int64, tag = "3")]
    pub(in super::super) validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    pub(in super::super) metadata: Option<Metadata>,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct Metadata {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(in super::super) fields: BTreeMap<String, Text>,
}

/// `google.protobuf.Value` that is a string; never an empty one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in super::super) struct Text {
    #[prost(string, tag = "3")]
    pub(in super::super) string_value: String,
}

/// `IstioCertificateResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in super::super) struct IstioCertificateResponse {
    /// PEM, leaf first, root last.
    #[prost(string, repeated, tag = "1")]
    pub(in super::super) cert_chain: Vec<String>,
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// Byte by byte, since servers of ours would be wrong alike: fields 1, 3 and 4; a map is a list of
    /// entries (key 1, value 2); the text of a value is its field 3.
    #[test]
    fn the_request_is_what_the_contract_says() {
        let text = Text { string_value: "v".to_owned() };
        let request = IstioCertificateRequest {
            csr: "c".to_owned(),
            validity_duration: 5,
            metadata: Some(Metadata { fields: BTreeMap::from([("k".to_owned(), text)]) }),
        };
        let value = [0x1a, 1, b'v'];
        let entry = [&[0x0a, 1, b'k', 0x12, 3], &value[..]].concat();
        let metadata = [&[0x0a, 8], &entry[..]].concat();
        let expected = [&[0x0a, 1, b'c', 0x18, 5, 0x22, 10], &metadata[..]].concat();
        assert_eq!(request.encode_to_vec(), expected);
    }

    #[test]
    fn keys_are_not_shown() {
        let mut svid = X509Svid::default();
        svid.spiffe_id = "spiffe://a/b".to_owned();
        svid.x509_svid_key = b"secret".to_vec();
        let shown = format!("{:?}", X509SvidResponse { svids: vec![svid], ..X509SvidResponse::default() });
        assert!(shown.contains("spiffe://a/b") && !shown.contains("115"), "{shown}");
    }
}
