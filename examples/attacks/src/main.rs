//! `starling-attacks`: runs every attack, prints a table, and writes one page with the pictures.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use starling_attacks::scene::{Scene, Source};
use starling_attacks::{report, study};

/// Attacks on real updates, and what stops them
#[derive(Debug, Parser)]
struct Arguments {
    /// A folder with the four files of MNIST or Fashion-MNIST; the embedded digits when not given
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where the page goes
    #[arg(long, default_value = "attacks.html", value_name = "FILE")]
    out: PathBuf,
    /// What pictures, weights, keys and noise are drawn by
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Rounds with the canary, and as many without
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rounds: u32,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let source = arguments.data.map_or(Source::Digits, Source::Folder);
    let scene = Scene::open(source, arguments.seed)?;
    let study = study::run(&scene, arguments.rounds, &mut |what| eprintln!("{what} …"))?;
    print!("{}", report::table(&study));
    let out = &arguments.out;
    std::fs::write(out, report::page(&study)).with_context(|| format!("{} cannot be written", out.display()))?;
    eprintln!("the pictures are in {}", out.display());
    Ok(())
}
