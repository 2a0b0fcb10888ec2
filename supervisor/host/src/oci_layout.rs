//! Images from a file or a directory instead of a registry: OCI layouts, and archives as
//! `docker save` writes them.
//!
//! An archive is not unpacked: its members are listed once with where they lie, and read from
//! there. Whatever is read is held against the digest that names it, like what a registry sends.
//!
//! ```text
//! directory ---------+
//! tar file -> list --+-> oci-layout, index.json -> manifest -> configuration, layers
//!                    +-> manifest.json (docker) -> a manifest made of it
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use pathrs::Root;
use pathrs::error::ErrorKind;
use pathrs::flags::OpenFlags;
use serde::Deserialize;

use crate::blob::{self, BlobError, Digest, parse_digest};
use crate::layer::archive::{Archive, ArchiveError, Kind};
use crate::layer::relative_path;
use crate::manifest::{self, Document, ManifestError, Platform, Resolved};

/// Longest manifest, index or configuration.
const LONGEST_DOCUMENT: u64 = 4 << 20;
/// More files than any image has.
const MOST_MEMBERS: usize = 100_000;
/// The name an image goes by inside a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Why an image cannot be had from a layout.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// It cannot be read.
    #[error("reading {what} of the image archive")]
    Read {
        /// Which part.
        what: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// It is no tar archive.
    #[error("reading the image archive")]
    Archive(#[source] ArchiveError),
    /// It is compressed as a whole.
    #[error("the image archive is compressed")]
    Compressed,
    /// Something else.
    #[error("this is neither an OCI image layout nor a docker archive: it has no index.json and no manifest.json")]
    Unknown,
    /// A part is not there.
    #[error("the image archive has no {0}")]
    Missing(String),
    /// A part is larger than any sensible one.
    #[error("{what} of the image archive is larger than {limit} bytes")]
    TooLarge {
        /// Which part.
        what: String,
        /// The longest allowed.
        limit: u64,
    },
    /// Its lists cannot be read.
    #[error("reading {what} of the image archive")]
    Json {
        /// Which part.
        what: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Several images, and none by the name that was asked for.
    #[error("the image archive holds {} images and none is called `{name}`", .count)]
    Several {
        /// How many.
        count: usize,
        /// What was asked for.
        name: String,
    },
    /// A part is not what its digest says.
    #[error("a blob of the image archive is wrong")]
    Blob(#[from] BlobError),
    /// The image cannot be run here.
    #[error("the image cannot be used")]
    Manifest(#[from] ManifestError),
}

impl LayoutError {
    /// What to do.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Compressed => "Decompress it first, e.g. with `gunzip`.".into(),
            Self::Unknown => "Make one with `skopeo copy ... oci-archive:image.tar` or `docker save`.".into(),
            Self::Several { .. } => "Import an archive of one image, or name it as it is named in the archive.".into(),
            Self::Manifest(error) => error.advice(),
            _ => "The archive is damaged or incomplete: make it again.".into(),
        }
    }
}

/// A place images are read from.
pub struct Layout {
    files: Files,
}

enum Files {
    Directory(Root),
    Archive { file: Arc<File>, members: BTreeMap<PathBuf, Member> },
}

/// Where a member of an archive is.
#[derive(Clone)]
enum Member {
    Bytes { at: u64, length: u64 },
    Link(PathBuf),
}

/// One image of a docker archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// An image found in a layout. Layers of a docker archive go by other names than their digests.
pub struct LayoutImage {
    /// Its manifest.
    pub resolved: Resolved,
    names: BTreeMap<String, PathBuf>,
}

impl Layout {
    /// A directory.
    ///
    /// # Errors
    /// It is not there.
    pub fn directory(path: &Path) -> Result<Self, LayoutError> {
        let root = Root::open(path)
            .map_err(|error| LayoutError::Read { what: path.display().to_string(), source: io::Error::other(error) })?;
        Ok(Self { files: Files::Directory(root) })
    }

    /// A tar archive, not compressed as a whole.
    ///
    /// # Errors
    /// It is no such archive.
    pub fn archive(file: File) -> Result<Self, LayoutError> {
        let mut start = [0; 4];
        let taken = file.read_at(&mut start, 0).map_err(reading("the beginning"))?;
        if matches!(&start[..taken], [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]) {
            return Err(LayoutError::Compressed);
        }
        let file = Arc::new(file);
        let members = list(Slice { file: file.clone(), at: 0, left: u64::MAX }).map_err(LayoutError::Archive)?;
        Ok(Self { files: Files::Archive { file, members } })
    }

    /// The image for this platform. Of several, the one that the layout itself knows by `tag` or
    /// by the whole `reference`.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn image(&self, reference: &str, tag: Option<&str>, platform: &Platform) -> Result<LayoutImage, LayoutError> {
        if let Some(bytes) = self.small("index.json")? {
            let index: ImageIndex =
                serde_json::from_slice(&bytes).map_err(|source| LayoutError::Json { what: "index.json", source })?;
            return self.oci_image(&index, reference, tag, platform);
        }
        let bytes = self.small("manifest.json")?.ok_or(LayoutError::Unknown)?;
        let images: Vec<DockerImage> =
            serde_json::from_slice(&bytes).map_err(|source| LayoutError::Json { what: "manifest.json", source })?;
        let named = |image: &&DockerImage| image.repo_tags.iter().flatten().any(|name| name == reference);
        let image = match &images[..] {
            [only] => Some(only),
            several => several.iter().find(named),
        };
        match image {
            Some(image) => self.docker_image(image),
            None => Err(LayoutError::Several { count: images.len(), name: reference.to_owned() }),
        }
    }

    /// An image's configuration.
    ///
    /// # Errors
    /// It is missing or wrong.
    pub fn document(&self, image: &LayoutImage, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
        let (path, digest) = image.locate(descriptor)?;
        let bytes = self.small_at(&path)?.ok_or_else(|| LayoutError::Missing(format!("blob {digest}")))?;
        blob::verify(&bytes, &digest)?;
        Ok(bytes)
    }

    /// A layer, from its beginning, after it has been read once and found right.
    ///
    /// # Errors
    /// It is missing or wrong.
    pub fn layer(&self, image: &LayoutImage, descriptor: &Descriptor) -> Result<impl Read + use<>, LayoutError> {
        let (path, digest) = image.locate(descriptor)?;
        let open = || self.open(&path)?.ok_or_else(|| LayoutError::Missing(format!("blob {digest}")));
        let (reader, _) = open()?;
        blob::verify_stream(reader, &digest, descriptor.size())?;
        Ok(open()?.0)
    }

    fn oci_image(
        &self,
        index: &ImageIndex,
        reference: &str,
        tag: Option<&str>,
        platform: &Platform,
    ) -> Result<LayoutImage, LayoutError> {
        let name = |entry: &Descriptor| entry.annotations().as_ref().and_then(|all| all.get(REF_NAME).cloned());
        let named: Vec<&Descriptor> = index
            .manifests()
            .iter()
            .filter(|entry| name(entry).is_some_and(|name| name == reference || Some(name.as_str()) == tag))
            .collect();
        let mut chosen = match (&named[..], &index.manifests()[..]) {
            ([one], _) => (*one).clone(),
            ([], [one]) => one.clone(),
            (_, all) if all.iter().all(|entry| entry.platform().is_some()) => {
                manifest::choose(index, platform)?.clone()
            }
            (_, all) => return Err(LayoutError::Several { count: all.len(), name: reference.to_owned() }),
        };
        for _ in 0..3 {
            let digest = parse_digest(chosen.digest().as_ref())?;
            let bytes = self
                .small_at(&blob_path(&digest))?
                .ok_or_else(|| LayoutError::Missing(format!("manifest {digest}")))?;
            blob::verify(&bytes, &digest)?;
            match manifest::parse(&bytes, Some(chosen.media_type().as_ref()))? {
                Document::Image(manifest) => {
                    let manifest = *manifest;
                    let resolved = Resolved { digest, bytes, manifest };
                    return Ok(LayoutImage { resolved, names: BTreeMap::new() });
                }
                Document::Index(inner) => chosen = manifest::choose(&inner, platform)?.clone(),
            }
        }
        Err(ManifestError::Nested.into())
    }

    /// Makes the manifest that a docker archive lacks: layers go by the digests of their files.
    fn docker_image(&self, image: &DockerImage) -> Result<LayoutImage, LayoutError> {
        let mut names = BTreeMap::new();
        let mut describe = |name: &str, media_type| -> Result<Descriptor, LayoutError> {
            let path = relative_path(name.as_bytes()).ok_or_else(|| LayoutError::Missing(name.to_owned()))?;
            let (reader, size) = self.open(&path)?.ok_or_else(|| LayoutError::Missing(name.to_owned()))?;
            let digest = parse_digest(&hash(reader).map_err(reading(name))?)?;
            names.insert(digest.to_string(), path);
            Ok(Descriptor::new(media_type, size, digest))
        };
        let config = describe(&image.config, MediaType::ImageConfig)?;
        let layers: Vec<Descriptor> =
            image.layers.iter().map(|layer| describe(layer, MediaType::ImageLayer)).collect::<Result<_, _>>()?;
        let bytes = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest,
            "config": config,
            "layers": layers,
        }))
        .map_err(|source| LayoutError::Json { what: "manifest.json", source })?;
        let manifest: ImageManifest =
            serde_json::from_slice(&bytes).map_err(|source| LayoutError::Json { what: "manifest.json", source })?;
        let digest = parse_digest(&blob::sha256(&bytes))?;
        Ok(LayoutImage { resolved: Resolved { digest, bytes, manifest }, names })
    }

    fn small(&self, name: &str) -> Result<Option<Vec<u8>>, LayoutError> {
        self.small_at(Path::new(name))
    }

    fn small_at(&self, path: &Path) -> Result<Option<Vec<u8>>, LayoutError> {
        let what = path.display().to_string();
        let Some((reader, _)) = self.open(path)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        reader.take(LONGEST_DOCUMENT + 1).read_to_end(&mut bytes).map_err(reading(&what))?;
        if bytes.len() as u64 > LONGEST_DOCUMENT {
            return Err(LayoutError::TooLarge { what, limit: LONGEST_DOCUMENT });
        }
        Ok(Some(bytes))
    }

    /// A file with its length; `None` if it is not there. Never outside of the layout.
    fn open(&self, path: &Path) -> Result<Option<(Slice, u64)>, LayoutError> {
        let what = path.display().to_string();
        match &self.files {
            Files::Directory(root) => {
                let opened = root.open_subpath(path, OpenFlags::O_RDONLY | OpenFlags::O_NONBLOCK);
                let file = match opened.map_err(io_error) {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(source) => return Err(LayoutError::Read { what, source }),
                };
                let found = file.metadata().map_err(reading(&what))?;
                if !found.is_file() {
                    return Err(LayoutError::Missing(what));
                }
                Ok(Some((Slice { file: Arc::new(file), at: 0, left: found.len() }, found.len())))
            }
            Files::Archive { file, members } => {
                let direct = members.get(path);
                let member = match direct {
                    Some(Member::Link(target)) => members.get(target),
                    other => other,
                };
                Ok(match member {
                    Some(Member::Bytes { at, length }) => {
                        Some((Slice { file: file.clone(), at: *at, left: *length }, *length))
                    }
                    _ => None,
                })
            }
        }
    }
}

impl LayoutImage {
    fn locate(&self, descriptor: &Descriptor) -> Result<(PathBuf, Digest), LayoutError> {
        let digest = parse_digest(descriptor.digest().as_ref())?;
        let path = self.names.get(digest.as_ref()).cloned().unwrap_or_else(|| blob_path(&digest));
        Ok((path, digest))
    }
}

/// A stretch of a file, read without moving anybody else's position.
struct Slice {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Slice {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let taken = self.file.read_at(&mut into[..most], self.at)?;
        self.at += taken as u64;
        self.left -= taken as u64;
        Ok(taken)
    }
}

fn list(archive: Slice) -> Result<BTreeMap<PathBuf, Member>, ArchiveError> {
    let mut archive = Archive::new(archive);
    let mut members = BTreeMap::new();
    while let Some(entry) = archive.next_entry()? {
        if members.len() >= MOST_MEMBERS {
            return Err(ArchiveError::Extension("more members than any image has"));
        }
        let Some(path) = relative_path(&entry.path) else { continue };
        let member = match entry.kind {
            Kind::File if entry.sparse.is_none() => Member::Bytes { at: archive.get_ref().at, length: entry.stored },
            // Old versions of docker name a layer that occurs twice by a link beside it.
            Kind::Symlink | Kind::HardLink => Member::Link(link_target(&path, &entry.link, entry.kind)),
            _ => continue,
        };
        members.insert(path, member);
    }
    Ok(members)
}

fn link_target(path: &Path, link: &[u8], kind: Kind) -> PathBuf {
    let link = Path::new(std::ffi::OsStr::from_bytes(link));
    if kind == Kind::HardLink {
        return link.to_owned();
    }
    let mut target = path.parent().unwrap_or(Path::new("")).to_owned();
    for part in link.components() {
        match part {
            std::path::Component::ParentDir => {
                target.pop();
            }
            std::path::Component::Normal(name) => target.push(name),
            _ => {}
        }
    }
    target
}

fn blob_path(digest: &Digest) -> PathBuf {
    Path::new("blobs").join(digest.algorithm().as_ref()).join(digest.digest())
}

fn hash(mut reader: impl Read) -> io::Result<String> {
    let mut hasher = blob::Hasher::sha256();
    let mut buffer = vec![0; 1 << 17];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            taken => hasher.update(&buffer[..taken]),
        }
    }
}

fn reading(what: &str) -> impl Fn(io::Error) -> LayoutError + use<> {
    let what = what.to_owned();
    move |source| LayoutError::Read { what: what.clone(), source }
}

fn io_error(error: pathrs::error::Error) -> io::Error {
    match error.kind() {
        ErrorKind::OsError(Some(errno)) => io::Error::from_raw_os_error(errno),
        _ => io::Error::other(error),
    }
}
