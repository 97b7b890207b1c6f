//! Writes the first inputs of the vault's fuzz targets into `fuzz/corpus`; to be run when a form changes:
//! `cargo run -p toktra-vault --example fuzz_seeds`.

use std::error::Error;
use std::fs;
use std::path::Path;

use toktra_vault::{UserKey, seal};
use zeroize::Zeroizing;

fn main() -> Result<(), Box<dyn Error>> {
    let key = UserKey::new(Zeroizing::new([1; 32]));
    let phrase = key.phrase();
    write("phrase", "whole", phrase.as_bytes())?;
    write("phrase", "written_otherwise", phrase.to_uppercase().replace(' ', "\n\t").as_bytes())?;
    write("phrase", "misspelt", phrase.replacen('a', "o", 1).as_bytes())?;
    write("phrase", "cut", phrase.rsplit_once(' ').map_or("", |(words, _)| words).as_bytes())?;
    let sealed =
        |key: &UserKey| seal(&key.recipient(), b"{\"host\":\"api.openai.com\"}", Zeroizing::new([9; 32]));
    let whole = sealed(&key)?;
    write("sealed", "whole", &whole)?;
    write("sealed", "cut", &whole[..whole.len() - 1])?;
    write("sealed", "head", &whole[..17])?;
    let mut changed = whole.clone();
    changed[100] ^= 1;
    write("sealed", "changed", &changed)?;
    write("sealed", "to_another", &sealed(&UserKey::new(Zeroizing::new([3; 32])))?)?;
    Ok(())
}

fn write(target: &str, name: &str, input: &[u8]) -> std::io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(name), input)
}
