//! Why an image cannot be used, with what to do about it.

use std::error::Error;
use std::io;

use berth_host::blob::BlobError;
use berth_host::disk_image::ImageError as DiskError;
use berth_host::fs::FsError;
use berth_host::layer::LayerError;
use berth_host::manifest::ManifestError;
use berth_host::oci_layout::LayoutError;
use berth_host::registry::RegistryError;
use berth_model::id::NameError;
use berth_model::quantity::about_bytes;

use super::Fullness;

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not a reference.
    #[error("the image's name is wrong")]
    Reference(#[source] NameError),
    /// The registry does not give it.
    #[error("fetching the image {reference}")]
    Registry {
        /// As asked for.
        reference: String,
        /// Why.
        #[source]
        source: RegistryError,
    },
    /// The archive does not give it.
    #[error("importing the image {reference}")]
    Archive {
        /// As asked for.
        reference: String,
        /// Why.
        #[source]
        source: LayoutError,
    },
    /// The archive holds another image than the digest in its name.
    #[error("importing the image {reference}: the archive holds {found}")]
    OtherImage {
        /// As asked for.
        reference: String,
        /// Digest of what is in the archive.
        found: String,
    },
    /// A layer cannot be unpacked.
    #[error("unpacking layer {layer} of the image {reference}")]
    Layer {
        /// As asked for.
        reference: String,
        /// Digest of the layer as it was fetched.
        layer: String,
        /// Why.
        #[source]
        source: LayerError,
    },
    /// Its configuration does not fit.
    #[error("the image {reference} cannot be used")]
    Manifest {
        /// As asked for.
        reference: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// A digest in it is none.
    #[error("the image {reference} names its layers by unknown digests")]
    Digest {
        /// As asked for.
        reference: String,
        /// Which.
        #[source]
        source: BlobError,
    },
    /// It does not fit on the disk.
    #[error(
        "the image {reference} does not fit: its new layers take {} packed and more when unpacked, \
         and {} are free for images on the data disk",
        about_bytes(*packed), about_bytes(*free)
    )]
    NoRoom {
        /// As asked for.
        reference: String,
        /// Bytes of the layers that are not here yet, as they are fetched.
        packed: u64,
        /// Bytes that images could take when it was begun.
        free: u64,
    },
    /// The disk is so full that none is taken in.
    #[error(
        "the image {reference} is not fetched: the data disk is {} % full, and from {} % on no image is taken in",
        fullness.used, fullness.limit
    )]
    Paused {
        /// As asked for.
        reference: String,
        /// How full.
        fullness: Fullness,
    },
    /// There is nothing to run.
    #[error("the image {reference} names no program to run, and neither does the bundle")]
    NoProgram {
        /// The image.
        reference: String,
    },
    /// The program is not there.
    #[error("the image {reference} has no program `{program}`")]
    ProgramMissing {
        /// The image.
        reference: String,
        /// As it would be run.
        program: String,
    },
    /// The program is no program.
    #[error("`{program}` in the image {reference} is not an executable file")]
    ProgramNotExecutable {
        /// The image.
        reference: String,
        /// As it would be run.
        program: String,
    },
    /// Nothing of that name is here.
    #[error("there is no image {reference} on this machine")]
    Unknown {
        /// As asked for.
        reference: String,
    },
    /// A service needs it.
    #[error("the image {reference} is in use")]
    InUse {
        /// As asked for.
        reference: String,
    },
    /// Something is being fetched.
    #[error("an image is being fetched")]
    Busy,
    /// An upload larger than any image may be.
    #[error("the image archive is larger than {limit} bytes")]
    UploadTooLarge {
        /// The largest allowed.
        limit: u64,
    },
    /// An upload that broke off, or a disk that is full.
    #[error("receiving the image archive")]
    Upload(#[source] io::Error),
    /// Another process has the store.
    #[error("the image store is in use by another process")]
    Locked,
    /// The store cannot be opened.
    #[error("opening the image store")]
    Open(#[source] RegistryError),
    /// Records cannot be kept.
    #[error("keeping the record of an image")]
    Keep(#[from] FsError),
    /// Layers cannot be kept.
    #[error("keeping the layers of images")]
    Layers(#[source] LayerError),
    /// The disk does not tell its room.
    #[error("asking for the free space of the disk")]
    Room(#[source] DiskError),
    /// Blobs cannot be kept.
    #[error("keeping the blobs of images")]
    Blobs(#[source] BlobError),
    /// A record on the disk is not what was written.
    #[error("the record {name} of an image is damaged")]
    Record {
        /// Its file.
        name: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A layer cannot be read.
    #[error("looking for a program in the image {reference}")]
    Look {
        /// The image.
        reference: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The work was cut off by a failure elsewhere or by the end of the process.
    #[error("the work on an image was cut off")]
    CutOff,
}

impl ImageError {
    /// One word for machines: condition reasons, events, exit codes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Reference(_) => "InvalidImageName",
            Self::Registry { source, .. } => registry_code(source),
            Self::Archive {
                source: LayoutError::Blob(BlobError::Mismatch { .. } | BlobError::Size { .. }), ..
            }
            | Self::OtherImage { .. } => "DigestMismatch",
            Self::Archive { source: LayoutError::Manifest(source), .. } | Self::Manifest { source, .. } => {
                manifest_code(source)
            }
            Self::Archive { .. } | Self::Digest { .. } => "InvalidImage",
            Self::UploadTooLarge { .. } => "UploadTooLarge",
            Self::Layer { source, .. } => layer_code(source),
            Self::NoRoom { .. } => "NoRoom",
            Self::Paused { .. } => "DiskPressure",
            Self::NoProgram { .. } => "NoProgram",
            Self::ProgramMissing { .. } | Self::ProgramNotExecutable { .. } => "ProgramMissing",
            Self::Unknown { .. } => "ImageNotFound",
            Self::InUse { .. } => "ImageInUse",
            Self::Busy => "ImageStoreBusy",
            Self::Upload(_) => "UploadFailed",
            _ => "ImageStoreFailed",
        }
    }

    /// Trying again without a change may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Registry { source, .. } => source.is_transient(),
            Self::CutOff | Self::Paused { .. } => true,
            _ => false,
        }
    }

    /// The disk is full, or would be.
    pub(super) fn is_full(&self) -> bool {
        let full = |cause: &(dyn Error + 'static)| {
            matches!(cause.downcast_ref(), Some(LayerError::NoRoom { .. }))
                || cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::StorageFull)
        };
        let mut cause: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if full(error) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// What to do.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Reference(_) => "Write it as registry/repository:tag.".into(),
            Self::Registry { source, .. } | Self::Open(source) => source.advice(),
            Self::Archive { source, .. } => source.advice(),
            Self::OtherImage { .. } => "Import it under a tag, or under its own digest.".into(),
            Self::Layer { source, .. } => layer_advice(source),
            Self::Manifest { source, .. } => source.advice(),
            Self::Digest { .. } => "Build and push the image again.".into(),
            Self::NoRoom { .. } => "Make room: `berth image prune`, `berth volume list`.".into(),
            Self::Paused { .. } => {
                "Make room, and it goes on by itself: `berth system cleanup`, `berth image prune`, `berth volume list`; \
                 spec.cleanup.disk.pausePercent of Settings berth is the limit."
                    .into()
            }
            Self::NoProgram { .. } => {
                "Set `command` in the bundle, or build the image with an entrypoint or a command.".into()
            }
            Self::ProgramMissing { .. } | Self::ProgramNotExecutable { .. } => {
                "Correct `command` in the bundle, or the entrypoint of the image.".into()
            }
            Self::Unknown { .. } => "See `berth image list` for what there is.".into(),
            Self::InUse { .. } => "Uninstall or update the bundles that use it first.".into(),
            Self::Busy => "Try again when it has arrived; `berth operations` shows what is under way.".into(),
            Self::UploadTooLarge { .. } => "Import a smaller image, or make room: `berth image prune`.".into(),
            Self::Upload(_) => "Try again; check the free space of the disk.".into(),
            Self::Locked => "Stop the other supervisor.".into(),
            Self::CutOff => "Try again.".into(),
            Self::Record { .. } => "Remove the record and pull the image again.".into(),
            Self::Keep(_) | Self::Room(_) | Self::Layers(_) | Self::Blobs(_) | Self::Look { .. } => {
                "Check the disk: its free space and its health.".into()
            }
        }
    }
}

fn registry_code(error: &RegistryError) -> &'static str {
    match error {
        RegistryError::UnknownHost { .. }
        | RegistryError::Refused { .. }
        | RegistryError::Unreachable { .. }
        | RegistryError::Tls { .. } => "RegistryUnreachable",
        RegistryError::Unauthorized { .. } => "RegistryUnauthorized",
        RegistryError::NotFound { .. } => "ImageNotFound",
        RegistryError::TooManyRequests { .. } | RegistryError::Status { .. } => "RegistryFailed",
        RegistryError::Interrupted { .. } => "TransferInterrupted",
        RegistryError::WrongManifest { .. } | RegistryError::WrongBlob { .. } => "DigestMismatch",
        RegistryError::TooLarge { .. } => "InvalidImage",
        RegistryError::Manifest(error) => manifest_code(error),
        RegistryError::Settings(_) => "RegistrySettings",
        RegistryError::Client(_) | RegistryError::Keep(_) | RegistryError::Write(_) => "ImageStoreFailed",
    }
}

fn manifest_code(error: &ManifestError) -> &'static str {
    match error {
        ManifestError::Platform { .. } => "NoImageForPlatform",
        ManifestError::MediaType { .. } => "UnsupportedMediaType",
        _ => "InvalidImage",
    }
}

fn layer_code(error: &LayerError) -> &'static str {
    match error {
        LayerError::Refused { .. } => "LayerRefused",
        LayerError::DiffId { .. } => "DigestMismatch",
        LayerError::NoRoom { .. } => "NoRoom",
        LayerError::TooManyBytes { .. } | LayerError::TooManyEntries { .. } => "LayerTooLarge",
        LayerError::Stream(_) | LayerError::Archive(_) => "LayerDamaged",
        _ => "ImageStoreFailed",
    }
}

fn layer_advice(error: &LayerError) -> String {
    match layer_code(error) {
        "LayerRefused" => {
            "The image was built by a faulty tool or by somebody with bad intentions: do not use it, \
             or build it again without that entry."
        }
        "LayerTooLarge" => "Use a smaller image.",
        "NoRoom" => "Make room: `berth image prune`, `berth volume list`.",
        "ImageStoreFailed" => "Check the disk: its free space and its health.",
        _ => "The image is damaged: build and push it again.",
    }
    .into()
}
