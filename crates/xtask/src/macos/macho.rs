//! Reads of a universal Mach-O file what the checks ask: versions, libraries, imports, signature. Values go
//! out, so that a check is a comparison; a file that is not as expected is an error, never a panic.

use anyhow::{Context as _, Result, bail};
use object::read::macho::{
    FatArch as _, LoadCommandVariant, MachHeader as _, MachOFatFile32, Nlist as _, SymbolTable,
};
use object::{LittleEndian, macho};

use super::symbols::Version;

type Header = macho::MachHeader64<LittleEndian>;

/// One architecture's part of a universal file.
#[derive(Debug)]
pub struct Slice<'data> {
    /// As `lipo(1)` calls it.
    pub architecture: &'static str,
    /// The whole slice.
    pub bytes: &'data [u8],
    /// The oldest macOS that loads it; `None` if it is not for macOS.
    pub minimum: Option<Version>,
    /// The SDK that it claims.
    pub sdk: Option<Version>,
    /// Whether it is a program that can be loaded anywhere (`MH_EXECUTE`, `MH_PIE`).
    pub is_pie: bool,
    /// Install names of the libraries that it loads, in the order of their ordinals.
    pub libraries: Vec<String>,
    /// What it takes from them.
    pub imports: Vec<Import>,
    /// Offset and bytes of the code signature.
    pub signature: Option<(usize, &'data [u8])>,
}

/// A symbol that is undefined in the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Import {
    /// With its underscore.
    pub symbol: String,
    /// The library that has it; `None` if it is to be looked for anywhere.
    pub library: Option<String>,
}

/// The slices of a universal file.
pub fn slices(file: &[u8]) -> Result<Vec<Slice<'_>>> {
    let fat = MachOFatFile32::parse(file).context("not a universal Mach-O file")?;
    fat.arches().iter().map(|arch| Slice::read(arch.data(file).context("a slice is cut short")?)).collect()
}

impl<'data> Slice<'data> {
    fn read(bytes: &'data [u8]) -> Result<Self> {
        let endian = LittleEndian;
        let header = Header::parse(bytes, 0).context("a slice is not a Mach-O file")?;
        let architecture = match header.cputype(endian) {
            macho::CPU_TYPE_ARM64 => "arm64",
            macho::CPU_TYPE_X86_64 => "x86_64",
            other => bail!("a slice for processor type {other}"),
        };
        let flags = header.flags(endian);
        let is_pie = header.filetype(endian) == macho::MH_EXECUTE && flags & macho::MH_PIE != 0;
        let mut slice = Self {
            architecture,
            bytes,
            minimum: None,
            sdk: None,
            is_pie,
            libraries: Vec::new(),
            imports: Vec::new(),
            signature: None,
        };
        let mut symbols = None;
        let mut commands = header.load_commands(endian, bytes, 0)?;
        while let Some(command) = commands.next()? {
            match command.variant()? {
                LoadCommandVariant::BuildVersion(build)
                    if build.platform.get(endian) == macho::PLATFORM_MACOS =>
                {
                    slice.minimum = Some(version(build.minos.get(endian)));
                    slice.sdk = Some(version(build.sdk.get(endian)));
                }
                LoadCommandVariant::Dylib(library) => {
                    let name = command.string(endian, library.dylib.name)?;
                    slice.libraries.push(String::from_utf8_lossy(name).into_owned());
                }
                LoadCommandVariant::Symtab(table) => {
                    symbols = Some(table.symbols::<Header, _>(endian, bytes)?)
                }
                LoadCommandVariant::LinkeditData(data)
                    if data.cmd.get(endian) == macho::LC_CODE_SIGNATURE =>
                {
                    let (offset, length) =
                        (data.dataoff.get(endian) as usize, data.datasize.get(endian) as usize);
                    let signature = offset.checked_add(length).and_then(|end| bytes.get(offset..end));
                    slice.signature = Some((offset, signature.context("the signature is cut short")?));
                }
                _ => {}
            }
        }
        let symbols = symbols.context("no symbol table, so its imports are not known")?;
        slice.imports = slice.imports_of(&symbols)?;
        Ok(slice)
    }

    fn imports_of(&self, symbols: &SymbolTable<'data, Header>) -> Result<Vec<Import>> {
        let mut imports = Vec::new();
        for symbol in symbols.iter().filter(|symbol| symbol.is_undefined()) {
            let name = symbol.name(LittleEndian, symbols.strings())?;
            // Ordinals count from 1; those above 253 say that no single library is meant.
            let ordinal = usize::from(symbol.library_ordinal(LittleEndian));
            let library = ordinal.checked_sub(1).and_then(|index| self.libraries.get(index)).cloned();
            imports.push(Import { symbol: String::from_utf8_lossy(name).into_owned(), library });
        }
        Ok(imports)
    }
}

/// Nibbles xxxx.yy.zz.
fn version(packed: u32) -> Version {
    Version((packed >> 16) as u16, (packed >> 8) as u8)
}
