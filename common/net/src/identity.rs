//! Who a certificate speaks for: the Starling URI and the common name of a leaf.

use rustls::pki_types::CertificateDer;
use starling_wire::Identity;
use starling_wire::limits::NAME_BYTES_MAX;
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

/// Seconds since 1970 until which the certificate is valid.
pub(crate) fn valid_until_unix_s(leaf: &CertificateDer<'_>) -> Option<i64> {
    Some(X509Certificate::from_der(leaf).ok()?.1.validity().not_after.timestamp())
}

fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    let usable = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
    usable.then(|| name.to_owned())
}
