use super::*;

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Repository::init_bare(dir.path().join("elsewhere")).unwrap();
        Self { dir }
    }

    fn branch(&self) -> RemoteBranch {
        let url = self.dir.path().join("elsewhere").to_string_lossy().into_owned();
        let place = Place { url, branch: "main".into(), ..Place::default() };
        RemoteBranch::open(&self.dir.path().join("here"), place).unwrap()
    }

    fn add(&self, branch: &RemoteBranch, parent: Option<Oid>, name: &str) -> Oid {
        let new = Addition {
            path: name,
            content: name.as_bytes(),
            message: name,
            by: ("Berth", "berth@box"),
            at: 1_700_000_000,
        };
        let draft = branch.draft(parent, &new).unwrap();
        let commit = branch.commit(&draft, "a signature").unwrap();
        branch.push(commit).unwrap();
        commit
    }

    fn files(&self, below: &str) -> usize {
        let list =
            |path: &Path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        let folders = list(&self.dir.path().join("here/objects"));
        let chosen = folders.iter().filter(|folder| match below {
            "pack" => folder.ends_with("pack"),
            _ => folder.file_name().unwrap().len() == 2,
        });
        chosen.map(|folder| list(folder).len()).sum()
    }
}

#[test]
fn what_is_packed_is_two_files_and_the_branch_grows_on() {
    let world = World::new();
    let branch = world.branch();
    let mut tip = None;
    for round in 0..2 {
        for number in 0..5 {
            tip = Some(world.add(&branch, tip, &format!("{round}/{number}")));
        }
        branch.pack(tip.unwrap()).unwrap();
        assert_eq!((world.files("pack"), world.files("loose")), (2, 0), "round {round}");
    }
    let again = world.branch();
    let tip = world.add(&again, tip, "last");
    assert_eq!(again.tip().unwrap(), Some(tip));
    let elsewhere = Repository::open(world.dir.path().join("elsewhere")).unwrap();
    let tree = elsewhere.find_commit(tip).unwrap().tree().unwrap();
    assert!(["0/0", "1/4", "last"].iter().all(|path| tree.get_path(Path::new(path)).is_ok()));
}

#[test]
fn a_branch_that_grew_meanwhile_is_not_overwritten() {
    let world = World::new();
    let branch = world.branch();
    let first = world.add(&branch, None, "first");
    let second = world.add(&branch, Some(first), "second");
    let new = Addition { path: "other", content: b"", message: "other", by: ("Berth", "berth@box"), at: 0 };
    let other = branch.commit(&branch.draft(Some(first), &new).unwrap(), "a signature").unwrap();
    assert!(branch.push(other).is_err());
    assert_eq!(branch.tip().unwrap(), Some(second));
    assert!(branch.grew_from(second, first).unwrap() && !branch.grew_from(first, second).unwrap());
}

#[test]
fn the_host_of_an_address_is_known_with_a_port_a_user_or_brackets() {
    let place = |url: &str| Place { url: url.into(), ..Place::default() };
    for (url, host) in [
        ("https://git.example/a", "git.example"),
        ("https://Git.Example:3000/a", "git.example"),
        ("https://[fd00::1]:3000/a", "fd00::1"),
        ("https://[fd00::1]/a", "fd00::1"),
        ("ssh://git@git.example:22/a", "git.example"),
    ] {
        assert!(place(url).is_of(host), "{url}");
    }
    assert!(!place("https://git.example/evil.example").is_of("evil.example"));
    assert!(!place("https://git.example@evil.example/a").is_of("git.example"));
}
