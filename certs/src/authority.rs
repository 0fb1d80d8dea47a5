//! The CA: an offline root, an issuing key, and the leaves that it signs.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData as _, SanType, SerialNumber,
};
use starling_wire::{DeviceId, Digest, Identity, PublicKey};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::error::CertsError;
use crate::files::{self, Secrecy};
use crate::inspect;
use crate::key::{self, Key, Subject};
use crate::pair::Pair;
use crate::{NAME_CHARACTERS_MAX, SERVER_NAME};

const ROOT_DAYS: u32 = 3653;
const ISSUING_DAYS: u32 = 731;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A new certificate starts this much in the past, for peers whose clock is late.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// The end of 9999: X.509 can say nothing later.
const UNIX_S_MAX: u64 = 253_402_300_799;

const ROOT_KEY: &str = "root.key";
const ROOT_CERTIFICATE: &str = "root.pem";
const ISSUING_KEY: &str = "issuing.key";
const ISSUING_CERTIFICATE: &str = "issuing.pem";
const TRUST_ANCHORS: &str = "ca.pem";

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first instant.
    pub not_before: SystemTime,
    /// The last instant.
    pub not_after: SystemTime,
}

impl Validity {
    /// From now, less five minutes for late clocks, for `days`.
    pub fn days(days: u32) -> Self {
        let now = SystemTime::now();
        Self { not_before: now - CLOCK_SKEW, not_after: now + DAY * days }
    }

    /// From `now_unix_s`, less a tenth of the life and at most five minutes for late clocks, for `life_s` seconds; not
    /// beyond `end_unix_s`.
    pub fn seconds(now_unix_s: u64, life_s: u64, end_unix_s: u64) -> Self {
        let at = |unix_s: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s.min(UNIX_S_MAX));
        let skew_s = (life_s / 10).min(CLOCK_SKEW.as_secs());
        Self {
            not_before: at(now_unix_s.saturating_sub(skew_s)),
            not_after: at(now_unix_s.saturating_add(life_s).min(end_unix_s)),
        }
    }

    fn bounds(self) -> Result<(OffsetDateTime, OffsetDateTime), CertsError> {
        let instant = |time: SystemTime| {
            let seconds = time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
            OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()
        };
        match (instant(self.not_before), instant(self.not_after)) {
            (Some(start), Some(end)) if start < end => Ok((start, end)),
            _ => Err(CertsError::Validity),
        }
    }
}

/// A CA that can sign leaves: the issuing key and its chain. The root's key is never held by it.
///
/// Not `Debug`: it holds a key.
pub struct Authority {
    pub(crate) issuer: Issuer<'static, Key>,
    issuing_pem: String,
    issuing_not_after: OffsetDateTime,
    root_pem: String,
}

/// A CA just made, with the root's key still at hand.
struct Founded {
    authority: Authority,
    root_key_pem: Zeroizing<String>,
    issuing_key_pem: Zeroizing<String>,
}

impl Authority {
    /// Makes a CA in `folder`: `root.key`, `root.pem`, `issuing.key`, `issuing.pem`, and `ca.pem`, which is what the fleet trusts.
    ///
    /// `root.key` is needed only to sign the next issuing certificate: move it offline.
    ///
    /// # Errors
    /// [`CertsError::Exists`] if one of the files is there, [`CertsError::File`] if one cannot be written.
    pub fn create(folder: &Path) -> Result<Self, CertsError> {
        let Founded { authority, root_key_pem, issuing_key_pem } = Self::found()?;
        let files = [
            (ROOT_KEY, Secrecy::Secret, root_key_pem.as_str()),
            (ISSUING_KEY, Secrecy::Secret, issuing_key_pem.as_str()),
            (ROOT_CERTIFICATE, Secrecy::Public, &authority.root_pem),
            (ISSUING_CERTIFICATE, Secrecy::Public, &authority.issuing_pem),
            (TRUST_ANCHORS, Secrecy::Public, &authority.root_pem),
        ];
        files::write_all(folder, &files)?;
        Ok(authority)
    }

    /// Opens the CA in `folder`. The root's key may be elsewhere.
    ///
    /// # Errors
    /// If a file is missing, is not what its name says, or a key can be read by others than its owner.
    pub fn open(folder: &Path) -> Result<Self, CertsError> {
        issuing_pair(folder).settle()?;
        let key_path = folder.join(ISSUING_KEY);
        let key = Key::from_pem(&files::read(&key_path, Secrecy::Secret)?)
            .ok_or(CertsError::Content { path: key_path.clone(), expected: "Ed25519 private key of an authority" })?;
        let read = |name| files::read(&folder.join(name), Secrecy::Public).map(|text| text.as_str().to_owned());
        let root_pem = read(ROOT_CERTIFICATE)?;
        let issuing_pem = read(ISSUING_CERTIFICATE)?;
        let content = || CertsError::Content { path: folder.join(ISSUING_CERTIFICATE), expected: "CA certificate" };
        let chain = inspect::parse(&issuing_pem)?;
        let issuing = chain.first().filter(|certificate| certificate.ca).ok_or_else(content)?;
        if issuing.public_key_sha256 != inspect::sha256_hex(&key.subject_public_key_info()) {
            return Err(CertsError::KeyMismatch { path: key_path });
        }
        let issuing_not_after = issuing.not_after_time().ok_or_else(content)?;
        let issuer = Issuer::from_ca_cert_pem(&issuing_pem, key).map_err(CertsError::Build)?;
        Ok(Self { issuer, issuing_pem, issuing_not_after, root_pem })
    }

    /// A CA that leaves nothing behind: for tests and for demonstrations on one machine.
    ///
    /// # Errors
    /// [`CertsError::Entropy`] if the system gives none.
    pub fn in_memory() -> Result<Self, CertsError> {
        Ok(Self::found()?.authority)
    }

    /// Signs a new issuing key with the root's and puts it in the place of the old one, whose certificate stays in the folder as
    /// `issuing-retired-SERIAL.pem`. Certificates of both are trusted as long as they are valid, because the fleet trusts the root. Returns
    /// the name of the retired certificate's file, if there was one: where the issuing key is lost, `root.key` and `root.pem` are enough.
    ///
    /// # Errors
    /// If `root.key` is not in the folder: bring it back from offline for this.
    pub fn roll_issuing(folder: &Path) -> Result<Option<String>, CertsError> {
        let root_path = folder.join(ROOT_KEY);
        let root_key = Key::from_pem(&files::read(&root_path, Secrecy::Secret)?)
            .ok_or(CertsError::Content { path: root_path.clone(), expected: "Ed25519 private key of an authority" })?;
        let root_pem = files::read(&folder.join(ROOT_CERTIFICATE), Secrecy::Public)?;
        if inspect::parse(&root_pem)?[0].public_key_sha256 != inspect::sha256_hex(&root_key.subject_public_key_info()) {
            return Err(CertsError::KeyMismatch { path: root_path });
        }
        let root = Issuer::from_ca_cert_pem(&root_pem, root_key).map_err(CertsError::Build)?;
        let mark: String = key::random::<4>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let key = Key::generate()?;
        let params = ca_params(&format!("Starling issuing {mark}"), ISSUING_DAYS, 0)?;
        let issuing_pem = params.signed_by(&key, &root).map_err(CertsError::Build)?.pem();
        let retired = retire(folder)?;
        if !files::holds(folder, TRUST_ANCHORS) {
            files::write_all(folder, &[(TRUST_ANCHORS, Secrecy::Public, &root_pem)])?;
        }
        issuing_pair(folder).replace(&issuing_pem, &key.to_pem())?;
        Ok(retired)
    }

    fn found() -> Result<Founded, CertsError> {
        let mark: String = key::random::<4>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let root_key = Key::generate()?;
        let issuing_key = Key::generate()?;
        let root_key_pem = root_key.to_pem();
        let issuing_key_pem = issuing_key.to_pem();
        let root_params = ca_params(&format!("Starling root {mark}"), ROOT_DAYS, 1)?;
        let issuing_params = ca_params(&format!("Starling issuing {mark}"), ISSUING_DAYS, 0)?;
        let root_pem = root_params.self_signed(&root_key).map_err(CertsError::Build)?.pem();
        let root = Issuer::new(root_params, root_key);
        let issuing_pem = issuing_params.signed_by(&issuing_key, &root).map_err(CertsError::Build)?.pem();
        let issuing_not_after = issuing_params.not_after;
        let issuer = Issuer::new(issuing_params, issuing_key);
        Ok(Founded {
            authority: Self { issuer, issuing_pem, issuing_not_after, root_pem },
            root_key_pem,
            issuing_key_pem,
        })
    }

    /// The certificates that the fleet trusts, in PEM: the root alone.
    pub fn ca_pem(&self) -> &str {
        &self.root_pem
    }

    /// A new key, and a certificate that vouches that its holder is `identity`.
    ///
    /// # Errors
    /// If the name fits in no certificate, or the validity is empty or ends after the issuing certificate's.
    pub fn issue(&self, identity: &Identity, validity: Validity) -> Result<Issued, CertsError> {
        let key = Key::generate()?;
        let certificate_pem = self.certify(identity, key.public(), validity)?;
        Ok(Issued { certificate_pem, key_pem: key.to_pem(), ca_pem: self.root_pem.clone() })
    }

    /// A certificate that vouches that the holder of `key` is `identity`, with the issuing certificate behind it, in PEM.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn certify(&self, identity: &Identity, key: PublicKey, validity: Validity) -> Result<String, CertsError> {
        check_name(&identity.name)?;
        let (not_before, not_after) = validity.bounds()?;
        if not_after > self.issuing_not_after {
            return Err(CertsError::OutlivesIssuer {
                wanted: inspect::date(not_after),
                issuer: inspect::date(self.issuing_not_after),
            });
        }
        let mut params = CertificateParams::default();
        params.not_before = not_before;
        params.not_after = not_after;
        params.serial_number = Some(serial()?);
        params.distinguished_name = common_name(&identity.name);
        params.subject_alt_names = vec![
            SanType::URI(identity.uri().try_into().map_err(CertsError::Build)?),
            SanType::DnsName(SERVER_NAME.try_into().map_err(CertsError::Build)?),
        ];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&Subject(key), &self.issuer).map_err(CertsError::Build)?;
        Ok(format!("{}{}", leaf.pem(), self.issuing_pem))
    }

    /// SHA-256 of the root's SubjectPublicKeyInfo: what a join string names half of.
    ///
    /// # Errors
    /// If the root's certificate cannot be read; it was when the authority was opened.
    pub fn fingerprint(&self) -> Result<Digest, CertsError> {
        inspect::fingerprint(&self.root_pem)
    }

    /// Seconds since 1970 until which the issuing certificate is valid: no leaf outlives it.
    pub fn issuing_until_unix_s(&self) -> u64 {
        u64::try_from(self.issuing_not_after.unix_timestamp()).unwrap_or(0)
    }

    /// The issuing certificate, in PEM.
    pub fn issuing_pem(&self) -> &str {
        &self.issuing_pem
    }

    /// A new id from the system's entropy.
    ///
    /// # Errors
    /// [`CertsError::Entropy`] if the system gives none.
    pub fn new_id() -> Result<DeviceId, CertsError> {
        Ok(DeviceId(key::random()?))
    }
}

/// A certificate and its key. Not `Debug`: it holds a key, which is wiped on drop.
pub struct Issued {
    /// The leaf and the issuing certificate.
    pub certificate_pem: String,
    /// The private key, PKCS #8.
    pub key_pem: Zeroizing<String>,
    /// What the holder trusts: the root.
    pub ca_pem: String,
}

impl Issued {
    /// Writes `certificate.pem`, `key.pem` (mode 0600) and `ca.pem` into `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// [`CertsError::Exists`] if one of them is there: nothing is written then.
    pub fn write(&self, folder: &Path) -> Result<(), CertsError> {
        files::write_all(
            folder,
            &[
                ("key.pem", Secrecy::Secret, &self.key_pem),
                ("certificate.pem", Secrecy::Public, &self.certificate_pem),
                ("ca.pem", Secrecy::Public, &self.ca_pem),
            ],
        )
    }
}

/// Where the issuing key and its certificate lie.
/// Keeps the certificate of the issuing key that is about to go, under a name of its own.
fn retire(folder: &Path) -> Result<Option<String>, CertsError> {
    if !files::holds(folder, ISSUING_CERTIFICATE) {
        return Ok(None);
    }
    let pem = files::read(&folder.join(ISSUING_CERTIFICATE), Secrecy::Public)?;
    let serial = &inspect::parse(&pem)?[0].serial;
    let name = format!("issuing-retired-{}.pem", &serial[..serial.len().min(16)]);
    files::write_all(folder, &[(&name, Secrecy::Public, &pem)])?;
    Ok(Some(name))
}

fn issuing_pair(folder: &Path) -> Pair {
    Pair { certificate: folder.join(ISSUING_CERTIFICATE), key: folder.join(ISSUING_KEY) }
}

fn ca_params(name: &str, days: u32, path_length: u8) -> Result<CertificateParams, CertsError> {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = Validity::days(days).bounds()?;
    params.serial_number = Some(serial()?);
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// 128 random bits; the top one is cleared and the next one set, so that the number is positive and of constant length
/// (RFC 5280, section 4.1.2.2).
fn serial() -> Result<SerialNumber, CertsError> {
    let mut bytes = key::random::<16>()?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn check_name(name: &str) -> Result<(), CertsError> {
    let problem = if name.is_empty() {
        "is empty"
    } else if name.chars().count() > NAME_CHARACTERS_MAX {
        "has more than 64 characters"
    } else if name.chars().any(char::is_control) {
        "holds a control character"
    } else {
        return Ok(());
    };
    Err(CertsError::Name { name: name.chars().take(80).collect(), problem })
}

#[cfg(test)]
mod tests;
