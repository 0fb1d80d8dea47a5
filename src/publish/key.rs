//! `starling publish key`: an Ed25519 key for one person or machine.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;
use starling_trust::SigningKey;

use crate::report::{JsonArgs, Table};

/// Arguments of `starling publish key`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Where the key goes (mode 0600, never over another file); its public half goes beside it, as .pub
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Seal the key under the passphrase in this file (12 bytes or more, mode 0600)
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Debug, Serialize)]
struct Made {
    key: PathBuf,
    public: PathBuf,
    public_key: String,
    id: String,
    sealed: bool,
}

pub(super) fn command(args: &Args) -> Result<()> {
    let public_path = args.out.with_extension("pub");
    anyhow::ensure!(public_path != args.out, "--out {}: .pub is for the public half", args.out.display());
    anyhow::ensure!(!public_path.exists(), "{} is there already", public_path.display());
    let seed = starling_store::create_key_file(&args.out, args.passphrase_file.as_deref())?;
    let public = SigningKey::from_seed(seed).public();
    let unwritable = || format!("{} cannot be written", public_path.display());
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&public_path)
        .with_context(unwritable)?;
    writeln!(file, "{public}").and_then(|()| file.sync_all()).with_context(unwritable)?;
    let sealed = args.passphrase_file.is_some();
    let mut table = Table::default();
    let how = if sealed { "sealed under the passphrase" } else { "not sealed: whoever reads the file can sign" };
    table.note(format!("{}: the key, {how}; it stays with its holder", args.out.display()));
    table.note(format!("{}: public key {public}; give this to whoever makes the root", public_path.display()));
    let (public_key, id) = (public.to_string(), public.id().to_string());
    args.json.finish(&Made { key: args.out.clone(), public: public_path, public_key, id, sealed }, &table)
}
