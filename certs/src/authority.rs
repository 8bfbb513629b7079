//! The signing side: a root made on the spot, and the leaves it signs.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};

use crate::request::{KeyKind, LeafRequest, Validity};
use crate::{Error, Purpose};

/// A certificate authority that lives as long as this value.
#[derive(Debug)]
pub struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

/// A certificate, its chain and its key.
#[derive(Debug)]
pub struct Leaf {
    certificate: CertificateDer<'static>,
    /// Above it, as far as a peer is to be shown them.
    issuers: Vec<CertificateDer<'static>>,
    pub(crate) serial: Option<SerialNumber>,
    chain_pem: String,
    key: Vec<u8>,
    key_pem: String,
}

impl Authority {
    /// A self-signed ECDSA P-256 root that holds for 30 days.
    ///
    /// # Errors
    /// [`Error::Mint`] when the key or certificate cannot be made.
    pub fn mint(common_name: &str) -> Result<Self, Error> {
        Self::mint_with(common_name, KeyKind::default(), Validity::from_now()?)
    }

    /// A self-signed root with this key and validity.
    ///
    /// # Errors
    /// [`Error::Mint`] when the key or certificate cannot be made.
    pub fn mint_with(common_name: &str, key: KeyKind, validity: Validity) -> Result<Self, Error> {
        let signed = generate(key).and_then(|pair| {
            let params = authority_params(common_name, validity);
            let certificate = params.self_signed(&pair)?;
            Ok(Self::of(&certificate, Issuer::new(params, pair)))
        });
        signed.map_err(|source| mint_error(common_name, source))
    }

    pub(crate) fn of(certificate: &Certificate, issuer: Issuer<'static, KeyPair>) -> Self {
        Self { certificate: certificate.der().clone(), pem: certificate.pem(), issuer }
    }

    /// An authority that exists already: its certificate and its key as PEM.
    ///
    /// # Errors
    /// [`Error::Mint`] when they cannot be read.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, Error> {
        let name = "an authority that exists";
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_| mint_error(name, rcgen::Error::CouldNotParseCertificate))?;
        let issuer = KeyPair::from_pem(key).and_then(|key| Issuer::from_ca_cert_der(&der, key));
        let issuer = issuer.map_err(|source| mint_error(name, source))?;
        Ok(Self { certificate: der, pem: certificate.to_owned(), issuer })
    }

    /// An authority below this one. Its leaves carry it in their chain.
    ///
    /// # Errors
    /// [`Error::Mint`] when the key or certificate cannot be made.
    pub fn intermediate(&self, common_name: &str) -> Result<Intermediate<'_>, Error> {
        let validity = Validity::from_now()?;
        let signed = generate(KeyKind::default()).and_then(|pair| {
            let params = authority_params(common_name, validity);
            let certificate = params.signed_by(&pair, &self.issuer)?;
            Ok(Self::of(&certificate, Issuer::new(params, pair)))
        });
        let below = signed.map_err(|source| mint_error(common_name, source))?;
        Ok(Intermediate { root: self, below })
    }

    /// Signs a leaf.
    ///
    /// # Errors
    /// [`Error::Name`] or [`Error::NoName`] for names that a certificate cannot carry,
    /// [`Error::Mint`] when the key or certificate cannot be made.
    pub fn issue(&self, request: &LeafRequest) -> Result<Leaf, Error> {
        let name = request.subject()?;
        let params = leaf_params(request, &name)?;
        let minted = generate(request.key).and_then(|key| {
            let certificate = params.signed_by(&key, &self.issuer)?;
            Ok(Leaf::of(&certificate, &key, &params))
        });
        minted.map_err(|source| mint_error(&name, source))
    }

    /// The root certificate as one PEM block, for a trust store.
    pub fn certificate_pem(&self) -> String {
        self.pem.clone()
    }

    /// The root certificate in DER.
    pub fn certificate_der(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// The authority's own private key (PKCS#8 PEM). Whoever holds it can mint any identity that
    /// trusts this root: write it with [`crate::write_private`] or not at all.
    pub fn key_pem_for_safekeeping(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

/// An authority that is itself signed by a root.
#[derive(Debug)]
pub struct Intermediate<'a> {
    pub(crate) root: &'a Authority,
    pub(crate) below: Authority,
}

impl Intermediate<'_> {
    /// Signs a leaf; its chain holds this intermediate after the leaf.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue(&self, request: &LeafRequest) -> Result<Leaf, Error> {
        Ok(self.below.issue(request)?.under(&self.below))
    }

    /// The intermediate's certificate in DER.
    pub fn certificate_der(&self) -> CertificateDer<'static> {
        self.below.certificate_der()
    }

    /// The root that signed it.
    pub fn root(&self) -> &Authority {
        self.root
    }
}

impl Leaf {
    pub(crate) fn of(certificate: &Certificate, key: &KeyPair, params: &CertificateParams) -> Self {
        Self {
            chain_pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuers: Vec::new(),
            serial: params.serial_number.clone(),
            key: key.serialize_der(),
            key_pem: key.serialize_pem(),
        }
    }

    pub(crate) fn under(mut self, issuer: &Authority) -> Self {
        self.chain_pem.push_str(&issuer.certificate_pem());
        self.issuers.push(issuer.certificate_der());
        self
    }

    /// The leaf and any intermediates, leaf first, in DER.
    pub fn chain_der(&self) -> Vec<CertificateDer<'static>> {
        std::iter::once(&self.certificate).chain(&self.issuers).cloned().collect()
    }

    /// The leaf and any intermediates, leaf first, as PEM.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The leaf alone in DER.
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The private key as PKCS#8 PEM.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The private key as PKCS#8 DER.
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()))
    }
}

/// A self-signed certificate around an RSA key that exists already (PKCS#8 DER), with no names:
/// what Keycloak publishes as `x5c` beside each key of its JWKS.
///
/// # Errors
/// [`Error::Mint`] when the key cannot be read.
pub fn self_signed(rsa_pkcs8: &[u8], name: &str) -> Result<CertificateDer<'static>, Error> {
    let validity = Validity::from_now()?;
    let der = PrivatePkcs8KeyDer::from(rsa_pkcs8);
    let signed = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_RSA_SHA256).and_then(|pair| {
        let mut params = named_params(name, validity);
        params.is_ca = IsCa::NoCa;
        params.self_signed(&pair)
    });
    Ok(signed.map_err(|source| mint_error(name, source))?.der().clone())
}

pub(crate) fn mint_error(name: &str, source: rcgen::Error) -> Error {
    Error::Mint { name: name.to_owned(), source }
}

pub(crate) fn generate(kind: KeyKind) -> Result<KeyPair, rcgen::Error> {
    match kind {
        KeyKind::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
    }
}

pub(crate) fn named_params(common_name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    validity.apply(&mut params);
    params
}

pub(crate) fn authority_params(common_name: &str, validity: Validity) -> CertificateParams {
    let mut params = named_params(common_name, validity);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(request: &LeafRequest, name: &str) -> Result<CertificateParams, Error> {
    let validity = request.validity.map_or_else(Validity::from_now, Ok)?;
    let mut params = named_params(name, validity);
    params.subject_alt_names = request.subject_alt_names()?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = request.purpose.usages();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // TLS 1.2 with a static RSA key exchange wraps the secret in the leaf's own key.
    if request.key == KeyKind::Rsa2048 && request.purpose != Purpose::Client {
        params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    }
    Ok(params)
}
