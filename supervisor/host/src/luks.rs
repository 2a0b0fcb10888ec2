//! LUKS2 on a block device, through libcryptsetup.
//!
//! The keys given here are random and long, so the key derivation of the key slot is the cheapest
//! that the format allows: it protects nothing, and a memory-hard one would cost seconds at every
//! start. The volume key is drawn by libcryptsetup and never leaves it.
//!
//! All calls block for up to seconds and hold one lock of the library; they are for a blocking
//! thread. The header takes 1 MiB: two copies of 16 KiB of metadata, then the key slots.

mod header;

use std::path::{Path, PathBuf};

use libcryptsetup_rs::consts::flags::{CryptActivate, CryptDeactivate, CryptPbkdf, CryptVolumeKey};
use libcryptsetup_rs::consts::vals::{CryptKdf, CryptStatusInfo, EncryptionFormat, KeyslotsSize, MetadataSize};
use libcryptsetup_rs::{
    CryptDevice, CryptInit, CryptParamsLuks2, CryptParamsLuks2Ref, CryptPbkdfType, Either, LibcryptErr,
};

use crate::loopdev::SECTOR;
use header::HeaderError;

/// Bytes before the data: what a device is smaller than its file.
pub const HEADER: u64 = 1 << 20;
/// Bytes of the volume key: two AES-256 keys, as XTS takes them.
const VOLUME_KEY: usize = 64;
/// Bytes kept for key slots; with two copies of the metadata it makes [`HEADER`].
const KEY_SLOTS: u64 = HEADER - 2 * (16 << 10);
/// How data and key slots are encrypted.
const CIPHER: (&str, &str) = ("aes", "xts-plain64");
/// The least that the library lets PBKDF2 be set to.
const ITERATIONS: u32 = 1000;

/// What could not be done with which device.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", .device.display())]
pub struct LuksError {
    doing: &'static str,
    device: PathBuf,
    #[source]
    source: Cause,
}

/// Why.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Library(#[from] LibcryptErr),
    #[error(transparent)]
    Header(#[from] HeaderError),
}

impl LuksError {
    fn at<'a, E: Into<Cause>>(doing: &'static str, device: &'a Path) -> impl Fn(E) -> LuksError + use<'a, E> {
        move |source| LuksError { doing, device: device.to_owned(), source: source.into() }
    }

    /// Whether no key slot opens with that key.
    #[must_use]
    pub fn is_wrong_key(&self) -> bool {
        matches!(self.code(), Some(libc::EPERM | libc::ENOENT))
    }

    /// Whether there is no header that can be read.
    #[must_use]
    pub fn is_no_header(&self) -> bool {
        matches!(self.source, Cause::Header(HeaderError::None)) || self.code() == Some(libc::EINVAL)
    }

    /// Whether there is a header, but not one that [`format`] makes.
    #[must_use]
    pub fn is_foreign_header(&self) -> bool {
        matches!(self.source, Cause::Header(HeaderError::Foreign { .. }))
    }

    /// Whether somebody has the device open.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.code() == Some(libc::EBUSY)
    }

    fn code(&self) -> Option<i32> {
        match &self.source {
            Cause::Library(LibcryptErr::IOError(error)) => error.raw_os_error(),
            _ => None,
        }
    }
}

/// Writes a new header with a new volume key, under one key slot for `key`.
///
/// What was on the device is lost.
///
/// # Errors
/// The device is too small or cannot be written.
pub fn format(device: &Path, key: &[u8]) -> Result<(), LuksError> {
    let failed = LuksError::at("formatting", device);
    let mut crypt = CryptInit::init(device).map_err(&failed)?;
    write_header(&mut crypt).map_err(&failed)?;
    let mut slots = crypt.keyslot_handle();
    slots.add_by_key(Some(0), None, key, CryptVolumeKey::empty()).map(drop).map_err(&failed)
}

fn write_header(crypt: &mut CryptDevice) -> Result<(), LibcryptErr> {
    let derivation = || CryptPbkdfType {
        type_: CryptKdf::Pbkdf2,
        hash: Some("sha256".into()),
        time_ms: 0,
        iterations: ITERATIONS,
        max_memory_kb: 0,
        parallel_threads: 0,
        // Without it the library measures the machine for seconds.
        flags: CryptPbkdf::NO_BENCHMARK,
    };
    let mut settings = crypt.settings_handle();
    settings.set_metadata_size(MetadataSize::Kb16, KeyslotsSize::try_from(KEY_SLOTS)?)?;
    settings.set_pbkdf_type(&derivation())?;
    let parameters = CryptParamsLuks2 {
        pbkdf: Some(derivation()),
        integrity: None,
        integrity_params: None,
        data_alignment: 0,
        data_device: None,
        sector_size: SECTOR,
        label: None,
        subsystem: None,
    };
    let mut parameters: CryptParamsLuks2Ref<'_> = (&parameters).try_into()?;
    crypt.context_handle().format(
        EncryptionFormat::Luks2,
        CIPHER,
        None,
        Either::Right(VOLUME_KEY),
        Some(&mut parameters),
    )
}

/// Makes `/dev/mapper/<name>` of the device; fine when it is there already.
///
/// # Errors
/// There is no LUKS2 header, or none that [`format`] makes ([`LuksError::is_foreign_header`]); the key
/// opens none of its slots ([`LuksError::is_wrong_key`]), or the name belongs to another device.
pub fn open(device: &Path, name: &str, key: &[u8]) -> Result<PathBuf, LuksError> {
    let mut crypt = load("opening", device)?;
    let failed = LuksError::at("opening", device);
    if !is_open(name) {
        let activated =
            crypt.activate_handle().activate_by_passphrase(Some(name), None, key, CryptActivate::ALLOW_DISCARDS);
        activated.map_err(&failed)?;
    }
    Ok(mapper(name))
}

/// Whether the key opens the device; changes nothing.
///
/// # Errors
/// As [`open`].
pub fn check_key(device: &Path, key: &[u8]) -> Result<(), LuksError> {
    let mut crypt = load("trying the key of", device)?;
    let failed = LuksError::at("trying the key of", device);
    let tried = crypt.activate_handle().activate_by_passphrase(None, None, key, CryptActivate::empty());
    tried.map(drop).map_err(&failed)
}

/// Removes `/dev/mapper/<name>`; fine when it is gone.
///
/// # Errors
/// It is in use ([`LuksError::is_busy`]); nothing is lost then.
pub fn close(name: &str) -> Result<(), LuksError> {
    if !is_open(name) {
        return Ok(());
    }
    let path = mapper(name);
    let failed = LuksError::at("closing", &path);
    let mut crypt = CryptInit::init_by_name_and_header(name, None).map_err(&failed)?;
    crypt.activate_handle().deactivate(name, CryptDeactivate::empty()).map_err(&failed)
}

/// Lets an open device take all of its grown file.
///
/// # Errors
/// As [`open`]; the name is not open.
pub fn take_new_size(device: &Path, name: &str, key: &[u8]) -> Result<(), LuksError> {
    let mut crypt = load("growing", device)?;
    let failed = LuksError::at("growing", device);
    // The volume key lies in the kernel's keyring under this context's name only once it was used here.
    let tried = crypt.activate_handle().activate_by_passphrase(None, None, key, CryptActivate::KEYRING_KEY);
    tried.map_err(&failed)?;
    crypt.context_handle().resize(name, 0).map_err(&failed)
}

/// Whether `/dev/mapper/<name>` is there.
#[must_use]
pub fn is_open(name: &str) -> bool {
    let status = libcryptsetup_rs::status(None, name);
    matches!(status, Ok(CryptStatusInfo::Active | CryptStatusInfo::Busy))
}

/// Names of the devices of the mapper that begin with `prefix`.
///
/// # Errors
/// `/dev/mapper` cannot be read.
pub fn names(prefix: &str) -> std::io::Result<Vec<String>> {
    let entries = match std::fs::read_dir("/dev/mapper") {
        // Nothing was ever mapped.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with(prefix)).collect())
}

/// Where an open device of that name is.
#[must_use]
pub fn mapper(name: &str) -> PathBuf {
    Path::new("/dev/mapper").join(name)
}

/// Nothing is written before both copies of the header have been looked at: the library mends one after the other.
fn load(doing: &'static str, device: &Path) -> Result<CryptDevice, LuksError> {
    header::check(device).map_err(LuksError::at(doing, device))?;
    let failed = LuksError::at(doing, device);
    let mut crypt = CryptInit::init(device).map_err(&failed)?;
    crypt.context_handle().load::<CryptParamsLuks2Ref<'_>>(Some(EncryptionFormat::Luks2), None).map_err(&failed)?;
    Ok(crypt)
}
