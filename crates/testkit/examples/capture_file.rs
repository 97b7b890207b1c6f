//! Writes a capture file: `capture_file FILE [FLOWS]`, a million flows unless told otherwise.

use std::fs::File;
use std::io::{BufWriter, Write};

use anyhow::Context;
use toktra_testkit::capture_file::CaptureFile;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("usage: capture_file FILE [FLOWS]")?;
    let flows = arguments.next().map_or(Ok(1_000_000), |flows| flows.parse()).context("FLOWS is a number")?;
    let mut output = BufWriter::with_capacity(1 << 20, File::create(&path).context(path)?);
    CaptureFile { flows, seed: 1, open_flows: 64 }.write(&mut output)?;
    output.flush()?;
    Ok(())
}
