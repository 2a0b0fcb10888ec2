//! An archive for whoever helps.

use std::os::unix::fs::PermissionsExt;

use crate::fake::{End, Fake, Reply};

const BUNDLE: &str = "GET /apis/berth.dev/v1/system/support-bundle";

#[tokio::test]
async fn the_archive_is_written_as_it_comes_for_its_owner_alone_and_replaces_nothing() {
    let fake = Fake::start();
    fake.on(BUNDLE, Reply::Stream(vec!["one ".into(), "two".into()], End::Properly));
    let file = fake.dir.path().join("x.tar.zst");
    let path = file.display().to_string();
    let ran = fake.run(&["support-bundle", &path]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains(&path) && ran.out.contains("have a look"), "{}", ran.out);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one two");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = fake.run(&["support-bundle", "--with-service-logs", &path]).await;
    assert_eq!(again.code, 1);
    assert!(again.err.contains("cannot make") && again.err.contains("File exists"), "{}", again.err);
    assert_eq!(fake.seen()[1].query, "serviceLogs=true");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one two");
}

#[tokio::test]
async fn where_the_server_refuses_no_file_is_made() {
    let fake = Fake::start();
    fake.refuse(BUNDLE, 403, "Forbidden", "not for you");
    let file = fake.dir.path().join("x.tar.zst");
    let ran = fake.run(&["support-bundle", &file.display().to_string()]).await;
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(!file.exists());
}
