//! Layers as wholes: killed, removed, looked into.

use super::*;

#[test]
fn nobody_but_root_reaches_the_setuid_programs_of_images() {
    let at = Fixture::new();
    for name in ["layers", "unpacking"] {
        assert_eq!(fs::metadata(at.dir.path().join(name)).unwrap().mode() & 0o777, 0o700);
    }
}

#[test]
fn a_removed_layer_is_gone_at_once_and_can_be_unpacked_again() {
    let at = Fixture::new();
    let bytes = Tar::default().file("a/b", "x").end();
    at.unpack_bytes(&bytes).unwrap();
    let diff_id = parse_digest(&sha256(&bytes)).unwrap();
    assert_eq!(at.store.list().unwrap(), std::slice::from_ref(&diff_id));
    at.store.remove(&diff_id).unwrap();
    at.store.remove(&diff_id).unwrap();
    assert_eq!(at.everything().len(), 2);
    at.unpack_bytes(&bytes).unwrap();
    assert!(at.store.contains(&diff_id));
}

/// Not a test of its own: the child of the test below, told by the environment where to unpack.
#[test]
fn child_that_unpacks_until_it_is_killed() {
    let Some(root) = std::env::var_os("BERTH_TEST_UNPACK_INTO") else { return };
    let store = LayerStore::open(Path::new(&root)).unwrap();
    let diff_id = parse_digest(&format!("sha256:{}", "0".repeat(64))).unwrap();
    store.unpack(std::io::stdin(), &diff_id, &Limits::default()).unwrap();
}

#[test]
fn a_kill_in_the_middle_of_unpacking_leaves_nothing_in_sight_and_the_rest_is_swept() {
    let at = Fixture::new();
    let mut child = command(std::env::current_exe().unwrap())
        .args(["--exact", "layer::tests::whole::child_that_unpacks_until_it_is_killed"])
        .env("BERTH_TEST_UNPACK_INTO", at.dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // More than fits into the pipe and the buffers behind it, so a part has been written when the
    // last byte is accepted; the end never comes.
    let content = "content ".repeat(1 << 16);
    let tar = (0..8).fold(Tar::default(), |tar, number| tar.file(&format!("dir/file{number}"), &content));
    child.stdin.as_mut().unwrap().write_all(&tar.0).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(at.store.list().unwrap(), []);
    assert_eq!(fs::read_dir(at.store.directory()).unwrap().count(), 0);
    assert!(at.everything().keys().any(|path| path.ends_with("dir/file0")), "it was killed before it wrote anything");
    assert_eq!(at.store.sweep().unwrap(), 1);
    assert_eq!(at.everything().len(), 2);
}

const PROGRAMS: [&str; 8] = [
    "/usr/bin/nginx",
    "/bin/nginx",
    "usr/sbin/nginx",
    "/climb/nginx",
    "/bin/alias",
    "/../bin/./nginx",
    "/opt/../bin/nginx",
    "/opt/new/tool",
];
const HIDDEN: [&str; 8] = [
    "/usr/bin/removed",
    "/opt/old/tool",
    "/srv/hidden",
    "/srv",
    "/loop",
    "/usr/bin/nginx/x",
    "/remade/old",
    "/nothing",
];

/// Two layers that hide, replace and link, the topmost first.
fn two_layers(at: &Fixture) -> [PathBuf; 2] {
    let base = Tar::default()
        .program("usr/bin/nginx")
        .program("usr/bin/removed")
        .program("opt/old/tool")
        .program("srv/hidden")
        .program("remade/old")
        .file("etc/passwd", "x")
        .symlink("bin", "usr/bin")
        .symlink("usr/sbin", "/usr/bin")
        .symlink("climb", "../../../../usr/bin")
        .symlink("usr/bin/alias", "nginx")
        .symlink("loop", "loop");
    let top = Tar::default()
        .file("usr/bin/.wh.removed", "")
        .file("opt/old/.wh..wh..opq", "")
        .program("opt/new/tool")
        .file(".wh.remade", "")
        .file("remade/new", "y")
        .file(".wh.srv", "");
    [at.unpack(top).unwrap(), at.unpack(base).unwrap()]
}

#[test]
fn a_path_is_found_whichever_layer_it_is_in_and_whatever_links_lead_there() {
    let at = Fixture::new();
    let layers = two_layers(&at);
    let found = |path: &str| find(&layers, Path::new(path)).unwrap();
    for path in PROGRAMS {
        assert!(matches!(found(path), Found::File { executable: true, .. }), "{path}");
    }
    for path in ["/etc/passwd", "/remade/new"] {
        assert!(matches!(found(path), Found::File { executable: false, .. }), "{path}");
    }
    assert_eq!(found("/opt"), Found::Directory);
    for path in HIDDEN {
        assert_eq!(found(path), Found::Absent, "{path}");
    }
}

/// An overlay of some layers, as the kernel makes it.
struct Overlay(tempfile::TempDir);

impl Overlay {
    fn of(layers: &[PathBuf]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layers: Vec<String> = layers.iter().map(|layer| layer.display().to_string()).collect();
        let options = format!("lowerdir={}", layers.join(":"));
        let flags = nix::mount::MsFlags::MS_RDONLY;
        nix::mount::mount(Some("layers"), dir.path(), Some("overlay"), flags, Some(options.as_str())).unwrap();
        Self(dir)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn the_kernel_shows_of_the_layers_what_was_found_in_them() {
    let at = Fixture::new();
    let layers = two_layers(&at);
    let overlay = Overlay::of(&layers);
    let root = pathrs::Root::open(overlay.0.path()).unwrap();
    for path in PROGRAMS.iter().chain(&HIDDEN).chain(&["/opt", "/etc/passwd", "/remade/new", "/"]) {
        let shown = root.resolve(path).ok().map(|handle| fs::File::from(std::os::fd::OwnedFd::from(handle)));
        let shown = shown.map(|file| file.metadata().unwrap().is_dir());
        let found = match find(&layers, Path::new(path)).unwrap() {
            Found::Absent => None,
            found => Some(found == Found::Directory),
        };
        assert_eq!(found, shown, "{path}");
    }
}

#[test]
fn a_link_of_an_image_is_never_followed_out_of_its_layers() {
    let at = Fixture::new();
    let layer = at.unpack(Tar::default().dir("etc")).unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    symlink(outside.path(), layer.join("etc/out")).unwrap();
    assert_eq!(find(&[layer], Path::new("/etc/out")).unwrap(), Found::Absent);
}

#[test]
fn a_program_is_looked_for_where_a_shell_would() {
    let at = Fixture::new();
    let tar = Tar::default().program("usr/bin/nginx").program("app/run.sh").file("app/data", "x").dir("usr/bin/dir");
    let layers = [at.unpack(tar).unwrap()];
    let find = |program: &str, directory: &str| {
        find_program(&layers, program, Path::new(directory), "/usr/local/bin:/usr/bin").unwrap()
    };
    assert_eq!(find("nginx", "/"), Program::Executable);
    assert_eq!(find("/usr/bin/nginx", "/"), Program::Executable);
    assert_eq!(find("./run.sh", "/app"), Program::Executable);
    assert_eq!(find("./run.sh", "/"), Program::Missing);
    assert_eq!(find("/app/data", "/"), Program::NotExecutable);
    assert_eq!(find("dir", "/"), Program::NotExecutable);
    assert_eq!(find("apache2", "/"), Program::Missing);
}
