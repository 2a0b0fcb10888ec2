//! The Debian package as Debian sees it.

use berth_tests::spawn;

use super::PARTS;

#[test]
#[ignore = "long tier"]
fn debian_s_own_examination_of_the_package_finds_no_error() {
    let examined = spawn::output(spawn::command("lintian").arg("--fail-on=error").arg(&PARTS.payload.path));
    if let Err(found) = &examined {
        panic!("{found}");
    }
}
