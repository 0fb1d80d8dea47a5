//! Revocation lists (RFC 5280, section 5) for other tools. Our own aggregator refuses by the device's id at the moment of
//! the operator's word, and needs no list.

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber};
use time::OffsetDateTime;

use crate::authority::Authority;
use crate::error::CertsError;

/// Why a certificate is on a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Thrown out for good.
    Revoked,
    /// Out for now.
    Suspended,
    /// Its key is in use in two places.
    KeyCompromise,
}

/// One certificate of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number, big-endian.
    pub serial: Vec<u8>,
    /// Since when, in seconds since 1970.
    pub since_unix_s: u64,
    /// Why.
    pub reason: Reason,
}

fn instant(unix_s: u64) -> Result<OffsetDateTime, CertsError> {
    let seconds = i64::try_from(unix_s).map_err(|_| CertsError::Validity)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| CertsError::Validity)
}

impl Authority {
    /// The list of `revoked`, in PEM, signed by the issuing key; a reader should look for a newer one `next_s` seconds later.
    /// The list's number is its time, so that it only grows.
    ///
    /// # Errors
    /// If a time lies beyond what X.509 can say.
    pub fn revocation_list(&self, revoked: &[Revoked], now_unix_s: u64, next_s: u64) -> Result<String, CertsError> {
        let entry = |revoked: &Revoked| {
            let reason = match revoked.reason {
                Reason::Revoked => RevocationReason::CessationOfOperation,
                Reason::Suspended => RevocationReason::CertificateHold,
                Reason::KeyCompromise => RevocationReason::KeyCompromise,
            };
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&revoked.serial),
                revocation_time: instant(revoked.since_unix_s)?,
                reason_code: Some(reason),
                invalidity_date: None,
            })
        };
        let list = CertificateRevocationListParams {
            this_update: instant(now_unix_s)?,
            next_update: instant(now_unix_s.saturating_add(next_s))?,
            crl_number: SerialNumber::from(now_unix_s),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect::<Result<_, CertsError>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).and_then(|list| list.pem()).map_err(CertsError::Build)
    }
}
