//! `starling certs init | issue | inspect | roll-issuing`: the arguments, and what they do.

use std::io::Write as _;
use std::path::PathBuf;

use serde_json::json;
use starling_wire::{DeviceId, Identity, Role};
use time::OffsetDateTime;

use crate::authority::{Authority, Validity};
use crate::error::CertsError;
use crate::{LEAF_DAYS_DEFAULT, files, inspect};

/// Arguments of `starling certs`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What `starling certs` can do.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Verb {
    /// Make a certificate authority: a root, whose key goes offline, and an issuing key
    Init(Init),
    /// Issue a key and a certificate to a device, an aggregator, an operator, a publisher or an auditor
    Issue(Issue),
    /// Show what a certificate says
    Inspect(Inspect),
    /// Sign a new issuing key with the root's; certificates of the old one stay good until they expire
    RollIssuing(Init),
}

/// Arguments of `starling certs init`.
#[derive(Debug, Clone, clap::Args)]
pub struct Init {
    /// The folder of the authority's keys and certificates
    #[arg(long, value_name = "FOLDER")]
    pub dir: PathBuf,
    /// Say the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `starling certs issue`.
#[derive(Debug, Clone, clap::Args)]
pub struct Issue {
    /// What the holder may be
    #[arg(value_enum)]
    pub role: IssuedRole,
    /// The holder's name, for people: at most 64 characters
    #[arg(long)]
    pub name: String,
    /// The folder that `starling certs init` made
    #[arg(long, value_name = "FOLDER")]
    pub authority: PathBuf,
    /// The folder for certificate.pem, key.pem and ca.pem
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// For how many days the certificate is valid
    #[arg(long, default_value_t = LEAF_DAYS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    pub days: u32,
    /// The holder's stable id, 32 hexadecimal digits; a new one by default. Give the old one when a holder gets a new key
    #[arg(long, value_name = "HEX")]
    pub id: Option<DeviceId>,
    /// Say the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `starling certs inspect`.
#[derive(Debug, Clone, clap::Args)]
pub struct Inspect {
    /// A PEM file with one certificate or more
    pub file: PathBuf,
    /// Say it as JSON
    #[arg(long)]
    pub json: bool,
}

/// The roles that are issued by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum IssuedRole {
    /// Trains and infers
    Device,
    /// Coordinates rounds
    Aggregator,
    /// Administers an aggregator
    Operator,
    /// Signs and releases models
    Publisher,
    /// Reads, and changes nothing
    Auditor,
}

impl From<IssuedRole> for Role {
    fn from(role: IssuedRole) -> Self {
        match role {
            IssuedRole::Device => Role::Device,
            IssuedRole::Aggregator => Role::Aggregator,
            IssuedRole::Operator => Role::Operator,
            IssuedRole::Publisher => Role::Publisher,
            IssuedRole::Auditor => Role::Auditor,
        }
    }
}

/// Does what `args` say, and reports on standard output.
///
/// # Errors
/// [`CertsError`] says what went wrong and what to do.
pub fn run(args: &Args) -> Result<(), CertsError> {
    let report = match &args.verb {
        Verb::Init(args) => init(args)?,
        Verb::Issue(args) => issue(args)?,
        Verb::Inspect(args) => inspect_file(args)?,
        Verb::RollIssuing(args) => roll_issuing(args)?,
    };
    writeln!(std::io::stdout().lock(), "{report}").map_err(CertsError::Output)
}

fn init(args: &Init) -> Result<String, CertsError> {
    let authority = Authority::create(&args.dir)?;
    let root = &inspect::parse(authority.ca_pem())?[0];
    if args.json {
        return Ok(json!({ "dir": args.dir, "root": root }).to_string());
    }
    let dir = args.dir.display();
    Ok(format!(
        "authority {:?} made in {dir}\n  root.key     move it offline now: it is needed only to sign the next issuing certificate\n  \
         issuing.key  signs certificates: `starling certs issue device --name NAME --authority {dir} --out FOLDER`\n  \
         ca.pem       what the fleet trusts; every issued folder holds a copy",
        root.name
    ))
}

fn roll_issuing(args: &Init) -> Result<String, CertsError> {
    let retired = Authority::roll_issuing(&args.dir)?;
    let authority = Authority::open(&args.dir)?;
    let issuing = &inspect::parse(authority.issuing_pem())?[0];
    if args.json {
        return Ok(json!({ "dir": args.dir, "issuing": issuing, "retired": retired }).to_string());
    }
    let before = retired.map_or_else(String::new, |retired| {
        format!("; the certificate before it is kept as {retired}, its key is gone")
    });
    Ok(format!(
        "{}\nwritten to {}{before}\n\
         a running aggregator takes the new key with the next certificate that it issues; put root.key offline again",
        issuing.describe(OffsetDateTime::now_utc()),
        args.dir.display()
    ))
}

fn issue(args: &Issue) -> Result<String, CertsError> {
    let authority = Authority::open(&args.authority)?;
    let id = args.id.map_or_else(Authority::new_id, Ok)?;
    let identity = Identity { id, role: args.role.into(), name: args.name.clone() };
    let issued = authority.issue(&identity, Validity::days(args.days))?;
    issued.write(&args.out)?;
    let leaf = &inspect::parse(&issued.certificate_pem)?[0];
    if args.json {
        return Ok(json!({ "out": args.out, "certificate": leaf }).to_string());
    }
    let warning = if files::holds(&args.authority, "root.key") {
        "\nroot.key still lies beside the issuing key: move it offline"
    } else {
        ""
    };
    Ok(format!("{}\nwritten to {}{warning}", leaf.describe(OffsetDateTime::now_utc()), args.out.display()))
}

fn inspect_file(args: &Inspect) -> Result<String, CertsError> {
    let certificates = inspect::read(&args.file)?;
    if args.json {
        return Ok(json!({ "certificates": certificates }).to_string());
    }
    let now = OffsetDateTime::now_utc();
    Ok(certificates.iter().map(|certificate| certificate.describe(now)).collect::<Vec<_>>().join("\n"))
}
