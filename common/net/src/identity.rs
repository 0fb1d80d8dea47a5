//! Who a certificate speaks for: the Starling URI and the common name of a leaf.

use rustls::pki_types::CertificateDer;
use starling_wire::limits::NAME_BYTES_MAX;
use starling_wire::{Identity, PublicKey};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The identity in `leaf`: exactly one `starling://<role>/<id>` among its alternative names, and a printable common
/// name within the limit. `None` for anything else.
pub(crate) fn of(leaf: &CertificateDer<'_>) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let alternatives = certificate.subject_alternative_name().ok()??;
    let mut uris = alternatives.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) if uri.starts_with("starling://") => Some(*uri),
        _ => None,
    });
    let (role, id) = Identity::parse_uri(uris.next()?)?;
    if uris.next().is_some() {
        return None;
    }
    Some(Identity { id, role, name: common_name(&certificate)? })
}

/// The common name of a certificate that need not be valid, for the operator's log.
pub(crate) fn claimed_name(leaf: &CertificateDer<'_>) -> Option<String> {
    common_name(&X509Certificate::from_der(leaf).ok()?.1)
}

/// What a leaf says beside the identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its key, if it is an Ed25519 one, as all that we issue are.
    pub key: Option<PublicKey>,
    /// Its serial number, big-endian.
    pub serial: Vec<u8>,
    /// The first second of its validity, since 1970.
    pub not_before_unix_s: u64,
    /// The last second of its validity, since 1970.
    pub not_after_unix_s: u64,
}

/// The same of a certificate whose chain was checked.
pub(crate) fn leaf(leaf: &CertificateDer<'_>) -> Option<Leaf> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let unix_s = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let validity = certificate.validity();
    let info = certificate.public_key();
    let ed25519 = info.algorithm.algorithm.to_id_string() == "1.3.101.112";
    let key = <[u8; 32]>::try_from(info.subject_public_key.data.as_ref()).ok().filter(|_| ed25519).map(PublicKey);
    Some(Leaf {
        key,
        serial: certificate.raw_serial().to_vec(),
        not_before_unix_s: unix_s(validity.not_before),
        not_after_unix_s: unix_s(validity.not_after),
    })
}

/// The SubjectPublicKeyInfo of a certificate.
pub(crate) fn public_key_info(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    Some(X509Certificate::from_der(certificate).ok()?.1.public_key().raw.to_vec())
}

fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    let usable = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
    usable.then(|| name.to_owned())
}
