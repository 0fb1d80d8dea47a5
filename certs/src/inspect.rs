//! What a certificate says, for people and for programs. It checks no signature and no date: it reports.

use std::fmt::Write as _;
use std::path::Path;

use rcgen::PublicKeyData as _;
use serde::Serialize;
use starling_wire::{DeviceId, Digest, Identity, PublicKey, Role};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::error::CertsError;
use crate::files::{self, Secrecy};
use crate::key::Subject;

/// One certificate of a PEM file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// The common name; for a leaf, the holder's name.
    pub name: String,
    /// The role, if the certificate carries an identity.
    pub role: Option<Role>,
    /// The stable id in hexadecimal digits, if the certificate carries an identity.
    pub id: Option<String>,
    /// The common name of the issuer.
    pub issuer: String,
    /// Whether it may sign other certificates.
    pub ca: bool,
    /// The first instant of its validity, RFC 3339.
    pub not_before: String,
    /// The last instant of its validity, RFC 3339.
    pub not_after: String,
    /// The serial number in hexadecimal digits.
    pub serial: String,
    /// The algorithm of its key: `Ed25519`, or the object identifier of another.
    pub key_algorithm: String,
    /// SHA-256 of the public key (its SubjectPublicKeyInfo).
    pub public_key_sha256: String,
    /// SHA-256 of the whole certificate.
    pub sha256: String,
    #[serde(skip)]
    not_after_unix: i64,
    #[serde(skip)]
    not_before_unix: i64,
}

impl Certificate {
    /// Who holds it, if it is a leaf of a Starling fleet.
    pub fn identity(&self) -> Option<Identity> {
        Some(Identity { id: self.id.as_ref()?.parse().ok()?, role: self.role?, name: self.name.clone() })
    }

    pub(crate) fn not_after_time(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp(self.not_after_unix).ok()
    }

    /// Whether it vouches for the holder of `key`.
    pub fn is_for(&self, key: &PublicKey) -> bool {
        self.public_key_sha256 == sha256_hex(&Subject(*key).subject_public_key_info())
    }

    /// The first second of its validity, since 1970.
    pub fn not_before_unix_s(&self) -> u64 {
        u64::try_from(self.not_before_unix).unwrap_or(0)
    }

    /// The last second of its validity, since 1970.
    pub fn not_after_unix_s(&self) -> u64 {
        u64::try_from(self.not_after_unix).unwrap_or(0)
    }

    /// A word for people: whether it is valid at `now`.
    fn state(&self, now: OffsetDateTime) -> String {
        let now = now.unix_timestamp();
        if now < self.not_before_unix {
            return "not valid yet".to_owned();
        }
        if now > self.not_after_unix {
            return "expired".to_owned();
        }
        match (self.not_after_unix - now) / (24 * 3600) {
            0 => "expires within a day".to_owned(),
            1 => "1 day left".to_owned(),
            days => format!("{days} days left"),
        }
    }

    /// A few lines for people.
    pub fn describe(&self, now: OffsetDateTime) -> String {
        let mut text = match self.identity() {
            Some(identity) => format!("{} {:?}\n  id           {}\n", identity.role, self.name, identity.id),
            None if self.ca => format!("authority {:?}\n", self.name),
            None => format!("certificate {:?} without a Starling identity\n", self.name),
        };
        writeln!(text, "  valid        {} to {} ({})", self.not_before, self.not_after, self.state(now))
            .expect("a string takes it");
        writeln!(text, "  issued by    {:?}", self.issuer).expect("a string takes it");
        writeln!(text, "  serial       {}", self.serial).expect("a string takes it");
        writeln!(text, "  key          {} {}", self.key_algorithm, self.public_key_sha256).expect("a string takes it");
        write!(text, "  SHA-256      {}", self.sha256).expect("a string takes it");
        text
    }
}

/// The certificates in the file at `path`, in their order.
///
/// # Errors
/// If the file cannot be read or holds anything but certificates.
pub fn read(path: &Path) -> Result<Vec<Certificate>, CertsError> {
    let text = files::read(path, Secrecy::Public)?;
    parse(&text).map_err(|error| match error {
        CertsError::NotACertificate { problem } => {
            CertsError::NotACertificate { problem: format!("{}: {problem}", path.display()) }
        }
        other => other,
    })
}

/// SHA-256 of the SubjectPublicKeyInfo of the first certificate in a PEM text.
///
/// # Errors
/// As [`parse`].
pub fn fingerprint(text: &str) -> Result<Digest, CertsError> {
    let certificates = parse(text)?;
    Ok(certificates[0].public_key_sha256.parse().expect("it was written as a digest"))
}

/// The certificates in a PEM text, in their order.
///
/// # Errors
/// [`CertsError::NotACertificate`] if it holds none, or anything else.
pub fn parse(text: &str) -> Result<Vec<Certificate>, CertsError> {
    let wrong = |problem: String| CertsError::NotACertificate { problem };
    let blocks = pem::parse_many(text).map_err(|error| wrong(format!("the text is no PEM ({error})")))?;
    if blocks.is_empty() {
        return Err(wrong("the text holds no PEM block".to_owned()));
    }
    blocks
        .iter()
        .map(|block| match block.tag() {
            "CERTIFICATE" => one(block.contents()),
            tag if tag.contains("PRIVATE KEY") => {
                Err(wrong("it holds a private key; inspect the certificate beside it".to_owned()))
            }
            tag => Err(wrong(format!("it holds a block {tag:?}"))),
        })
        .collect()
}

fn one(der: &[u8]) -> Result<Certificate, CertsError> {
    let wrong = |problem: String| CertsError::NotACertificate { problem };
    let (rest, parsed) =
        X509Certificate::from_der(der).map_err(|error| wrong(format!("a block is no X.509 certificate ({error})")))?;
    if !rest.is_empty() {
        return Err(wrong(format!("{} bytes follow a certificate", rest.len())));
    }
    let (role, id) = identity_of(&parsed).unzip();
    let (not_before, not_after) =
        (parsed.validity().not_before.to_datetime(), parsed.validity().not_after.to_datetime());
    let algorithm = parsed.public_key().algorithm.algorithm.to_id_string();
    Ok(Certificate {
        name: common_name(parsed.subject()),
        role,
        id: id.map(|id| id.to_string()),
        issuer: common_name(parsed.issuer()),
        ca: parsed.is_ca(),
        not_before: date(not_before),
        not_after: date(not_after),
        serial: parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        key_algorithm: if algorithm == "1.3.101.112" { "Ed25519".to_owned() } else { algorithm },
        public_key_sha256: sha256_hex(parsed.public_key().raw),
        sha256: sha256_hex(der),
        not_after_unix: not_after.unix_timestamp(),
        not_before_unix: not_before.unix_timestamp(),
    })
}

/// The role and the id in the subject alternative name: exactly one URI that names them.
fn identity_of(certificate: &X509Certificate<'_>) -> Option<(Role, DeviceId)> {
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let mut found = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Identity::parse_uri(uri),
        _ => None,
    });
    let identity = found.next()?;
    found.next().is_none().then_some(identity)
}

fn common_name(name: &X509Name<'_>) -> String {
    name.iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or("").to_owned()
}

/// RFC 3339, in UTC.
pub(crate) fn date(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_else(|_| time.unix_timestamp().to_string())
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}
