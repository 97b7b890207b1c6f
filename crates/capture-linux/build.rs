//! Compiles the eBPF programs with the system's clang. There is no other toolchain to install:
//! one object runs on every kernel from 5.10 on, because it uses UAPI types only.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const SOURCE: &str = "bpf/toktra.bpf.c";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CLANG");
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            println!("cargo::error={problem}");
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let out = env::var("OUT_DIR").map_err(|_| "run this through cargo: OUT_DIR is not set".to_owned())?;
    let object = PathBuf::from(out).join("toktra.bpf.o");
    let mut command = Command::new(&clang);
    command.args(["-target", "bpf", "-O2", "-g", "-Wall", "-Werror", "-c", SOURCE, "-o"]).arg(&object);
    // Debian keeps <asm/types.h> where only its own triple looks.
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let include = format!("/usr/include/{architecture}-linux-gnu");
    if Path::new(&include).exists() {
        command.arg(format!("-I{include}"));
    }
    let output = command.output().map_err(|error| {
        format!("`{clang}` does not run ({error}); install the packages `clang`, `libbpf-dev` and `linux-libc-dev`")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).replace('\n', " | ");
    Err(format!(
        "`{clang}` could not compile {SOURCE}; if a header is missing install the packages `libbpf-dev` and `linux-libc-dev`: {said}"
    ))
}
