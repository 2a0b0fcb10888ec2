//! What of a bundle's spec makes a revision, and how the spec goes back to that of an earlier one.

use super::{BundleSpec, Egress, VolumeSummary, VolumeWish};
use crate::quantity;
use crate::resource::volume::volume_name;

/// What of a spec makes a new revision when it changes: all but the wish to run, whom it may reach,
/// which holds at once, and how much room volumes have, which they get while the service runs.
pub fn rollout_part(spec: &BundleSpec) -> BundleSpec {
    let mut volumes = spec.volumes.clone();
    for volume in &mut volumes {
        volume.size = String::new();
        volume.backup = true;
    }
    BundleSpec {
        volumes,
        start: true,
        update: false,
        depends_on: Vec::new(),
        egress: Egress::default(),
        ..spec.clone()
    }
}

/// The spec of bundle `name` when it goes back to an earlier one: what makes a revision is as it was, and
/// what holds without one is as it is. Nobody is looking for newer images any more: that would lead
/// forward again.
pub fn gone_back(name: &str, present: &BundleSpec, earlier: &BundleSpec, volumes: &[VolumeSummary]) -> BundleSpec {
    let room = |wish: &VolumeWish| VolumeWish { size: size(name, wish, present, volumes), ..kept(wish, present) };
    BundleSpec {
        start: present.start,
        update: false,
        depends_on: present.depends_on.clone(),
        egress: present.egress,
        volumes: earlier.volumes.iter().map(room).collect(),
        ..earlier.clone()
    }
}

fn kept(wish: &VolumeWish, present: &BundleSpec) -> VolumeWish {
    let same = present.volumes.iter().find(|own| own.name == wish.name);
    VolumeWish { backup: same.map_or(wish.backup, |own| own.backup), ..wish.clone() }
}

/// As it is wanted now; of a volume that was not wanted meanwhile, the room it has.
fn size(name: &str, wish: &VolumeWish, present: &BundleSpec, volumes: &[VolumeSummary]) -> String {
    if let Some(same) = present.volumes.iter().find(|own| own.name == wish.name) {
        return same.size.clone();
    }
    let has = volumes.iter().find(|one| one.name == volume_name(name, &wish.name)).map(|one| one.size.as_str());
    let bytes = has.and_then(|size| quantity::bytes(size).ok()).filter(|has| Some(*has) > wish.bytes());
    bytes.map_or_else(|| wish.size.clone(), quantity::show_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::bundle::EnvVar;
    use crate::resource::volume::VolumeState;

    fn wish(name: &str, size: &str) -> VolumeWish {
        VolumeWish { name: name.into(), mount_path: format!("/{name}"), size: size.into(), backup: true }
    }

    fn spec(image: &str) -> BundleSpec {
        let env = vec![EnvVar { name: "IMAGE".into(), value: image.into(), ..EnvVar::default() }];
        BundleSpec { image: image.into(), start: true, env, ..BundleSpec::default() }
    }

    #[test]
    fn a_spec_that_goes_back_makes_the_same_revision_again() {
        let earlier = BundleSpec { update: true, volumes: vec![wish("data", "1Gi")], ..spec("r/web:1") };
        let present = BundleSpec {
            start: false,
            egress: Egress::None,
            depends_on: vec!["db".into()],
            volumes: vec![wish("data", "2Gi")],
            ..spec("r/web:2")
        };
        let back = gone_back("web", &present, &earlier, &[]);
        assert_eq!(rollout_part(&back), rollout_part(&earlier));
        assert_eq!((back.start, back.update, back.egress), (false, false, Egress::None));
        assert_eq!((back.depends_on.as_slice(), back.volumes[0].size.as_str()), (["db".to_owned()].as_slice(), "2Gi"));
    }

    #[test]
    fn a_volume_that_was_not_wanted_meanwhile_keeps_the_room_it_has() {
        let earlier = BundleSpec { volumes: vec![wish("data", "1Gi"), wish("new", "64Mi")], ..spec("r/web:1") };
        let has = [VolumeSummary { name: "web-data".into(), state: VolumeState::Ready, size: "3Gi".into() }];
        let sizes: Vec<String> =
            gone_back("web", &spec("r/web:2"), &earlier, &has).volumes.into_iter().map(|one| one.size).collect();
        assert_eq!(sizes, ["3Gi", "64Mi"]);
    }
}
