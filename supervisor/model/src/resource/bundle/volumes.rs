//! Volumes as a bundle asks for them, and the rules for that.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::twice;
use crate::field::FieldError;
use crate::id;
use crate::quantity;
use crate::resource::volume::{VolumeState, volume_name};

/// The least that a volume can have, in bytes: below it a filesystem has more bookkeeping than room.
pub const MIN_VOLUME: u64 = 16 << 20;

/// Mount points that would take something away from a container that it cannot do without, or that
/// are not its own; what lies below the first four neither.
const RESERVED: [&str; 5] = ["/proc", "/sys", "/dev", "/etc", "/"];

/// A disk of the bundle's own, encrypted, that outlives it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeWish {
    /// A DNS label, unique in the bundle. Another name is another volume.
    pub name: String,
    /// Where the service finds it: an absolute path.
    pub mount_path: String,
    /// Its room, e.g. `10Gi`; may grow, never shrink.
    pub size: String,
    /// Whether backups take it along.
    #[serde(default = "super::yes")]
    pub backup: bool,
}

impl VolumeWish {
    /// The size in bytes, a multiple of 1 MiB, if it is one.
    pub fn bytes(&self) -> Option<u64> {
        quantity::bytes(&self.size).ok().and_then(|bytes| bytes.checked_next_multiple_of(1 << 20))
    }
}

/// What a bundle's status says of one of its volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSummary {
    /// Name of the Volume.
    pub name: String,
    /// How it stands.
    pub state: VolumeState,
    /// Its room, e.g. `10Gi`.
    pub size: String,
}

/// Complaints about volumes, whatever there was before.
pub(super) fn rules(volumes: &[VolumeWish]) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = volumes.iter().enumerate().flat_map(|(at, volume)| one(at, volume)).collect();
    errors.extend(twice("spec.volumes", "name", volumes.iter().map(|volume| Some(volume.name.as_str()))));
    errors.extend(overlaps(volumes));
    errors
}

fn one(at: usize, volume: &VolumeWish) -> Vec<FieldError> {
    let path = |field: &str| format!("spec.volumes[{at}].{field}");
    let name = id::dns_label(&volume.name).err().map(|error| FieldError::invalid(path("name"), error.to_string()));
    let place = mount_path(&volume.mount_path).err().map(|error| FieldError::invalid(path("mountPath"), error));
    let size = match quantity::bytes(&volume.size) {
        Err(error) => Some(error.to_string()),
        Ok(bytes) if bytes < MIN_VOLUME => Some("must be at least 16Mi".to_owned()),
        Ok(_) if volume.bytes().is_none() => Some("is more than any machine has".to_owned()),
        Ok(_) => None,
    };
    let size = size.map(|message| FieldError::invalid(path("size"), message));
    [name, place, size].into_iter().flatten().collect()
}

fn mount_path(path: &str) -> Result<(), String> {
    let clean = path.strip_prefix('/').is_some_and(|rest| {
        rest.is_empty() || rest.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'))
    });
    if !clean {
        return Err(format!("`{path}` must be an absolute path without `.`, `..`, empty parts or a slash at its end"));
    }
    let taken = RESERVED.contains(&path) || RESERVED[..3].iter().any(|reserved| is_below(path, reserved));
    if taken { Err(format!("`{path}` cannot be a volume: the container needs it for itself")) } else { Ok(()) }
}

fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
}

fn overlaps(volumes: &[VolumeWish]) -> Vec<FieldError> {
    let clash = |(at, volume): (usize, &VolumeWish)| {
        let path = volume.mount_path.as_str();
        let other = volumes[..at].iter().find(|other| {
            let other = other.mount_path.as_str();
            path == other || is_below(path, other) || is_below(other, path)
        })?;
        let message = format!("`{path}` and `{}` of volume {} lie within one another", other.mount_path, other.name);
        Some(FieldError::invalid(format!("spec.volumes[{at}].mountPath"), message))
    };
    volumes.iter().enumerate().filter_map(clash).collect()
}

/// Complaints about volumes that would have less room than they have. A wish that never came true may
/// be taken back.
pub(super) fn shrunk(bundle: &str, wishes: &[VolumeWish], present: &[VolumeSummary]) -> Vec<FieldError> {
    let smaller = |(at, wish): (usize, &VolumeWish)| {
        let own = present.iter().find(|own| own.name == volume_name(bundle, &wish.name))?;
        let message = format!(
            "a volume never shrinks: it has {}; leave that, or take another name for a new, smaller volume",
            own.size
        );
        let less = wish.bytes()? < quantity::bytes(&own.size).ok()?;
        less.then(|| FieldError::forbidden(format!("spec.volumes[{at}].size"), message))
    };
    wishes.iter().enumerate().filter_map(smaller).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(name: &str, path: &str, size: &str) -> VolumeWish {
        VolumeWish { name: name.into(), mount_path: path.into(), size: size.into(), backup: true }
    }

    fn said(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn volumes_side_by_side_are_in_order() {
        let volumes = [wish("data", "/data", "1Gi"), wish("more", "/data-2", "16Mi"), wish("logs", "/var/log/x", "1G")];
        assert_eq!(rules(&volumes), []);
    }

    #[test]
    fn a_mount_path_is_absolute_clean_and_not_the_containers_own() {
        for path in
            ["", "data", "/data/", "/a//b", "/a/../b", "/.", "/", "/proc", "/proc/x", "/dev/shm", "/sys", "/etc"]
        {
            let errors = rules(&[wish("data", path, "1Gi")]);
            let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(fields, ["spec.volumes[0].mountPath"], "{path}");
        }
        for path in ["/etc/app", "/run/app", "/tmp", "/var/lib/x", "/devices", "/..data"] {
            assert_eq!(rules(&[wish("data", path, "1Gi")]), [], "{path}");
        }
    }

    #[test]
    fn two_volumes_share_neither_name_nor_place() {
        let volumes = [wish("a", "/data", "1Gi"), wish("a", "/other", "1Gi"), wish("b", "/data/x", "1Gi")];
        assert_eq!(
            said(&rules(&volumes)),
            [
                "spec.volumes[1].name: `a` is taken by spec.volumes[0]".to_owned(),
                "spec.volumes[2].mountPath: `/data/x` and `/data` of volume a lie within one another".to_owned(),
            ]
        );
    }

    #[test]
    fn a_size_is_a_quantity_that_a_filesystem_fits_into() {
        for (size, why) in [
            ("lots", "`lots` is no number of bytes: write e.g. `512Mi`, `2Gi` or `1G`"),
            ("1Mi", "must be at least 16Mi"),
        ] {
            assert_eq!(said(&rules(&[wish("data", "/data", size)])), [format!("spec.volumes[0].size: {why}")]);
        }
        assert_eq!(wish("data", "/data", "100M").bytes(), Some(96 << 20));
    }

    #[test]
    fn a_volume_may_grow_and_is_refused_to_shrink_by_field() {
        let ready = [VolumeSummary { name: "web-data".into(), state: VolumeState::Ready, size: "1Gi".into() }];
        assert_eq!(shrunk("web", &[wish("data", "/data", "1024Mi")], &ready), []);
        assert_eq!(shrunk("web", &[wish("data", "/data", "2Gi")], &ready), []);
        assert_eq!(shrunk("web", &[wish("other", "/data", "16Mi")], &ready), []);
        let errors = shrunk("web", &[wish("data", "/data", "512Mi")], &ready);
        assert_eq!(errors[0].field, "spec.volumes[0].size");
        assert!(errors[0].message.contains("it has 1Gi"), "{}", errors[0].message);
    }
}
