//! What would be run, and whether the image has it. Asked before a start, so that a missing program
//! is an error with a name and not a unit that fails.

use std::path::{Path, PathBuf};

use berth_host::layer::merged::{Program, find_program};
use berth_model::resource::bundle::BundleSpec;
use berth_model::resource::revision::ResolvedImage;

use super::ImageError;

/// Where programs are looked for when neither image nor bundle says.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Program and arguments: `command` replaces the entrypoint and with it the image's own arguments,
/// `args` replaces the image's own arguments.
///
/// # Errors
/// [`ImageError::NoProgram`].
pub fn argv(image: &ResolvedImage, spec: &BundleSpec) -> Result<Vec<String>, ImageError> {
    let first = if spec.command.is_empty() { &image.entrypoint } else { &spec.command };
    let own = if spec.command.is_empty() { &image.cmd[..] } else { &[] };
    let rest = if spec.args.is_empty() { own } else { &spec.args };
    let argv: Vec<String> = first.iter().chain(rest).cloned().collect();
    match argv.first() {
        Some(program) if !program.is_empty() => Ok(argv),
        _ => Err(ImageError::NoProgram { reference: image.reference.clone() }),
    }
}

/// The program is in the layers, the topmost first, and can be executed.
///
/// # Errors
/// It is not, or there is none.
pub fn check(image: &ResolvedImage, spec: &BundleSpec, layers: &[PathBuf]) -> Result<(), ImageError> {
    let argv = argv(image, spec)?;
    let program = argv.first().map(String::as_str).unwrap_or_default();
    let directory = match spec.working_dir.as_deref().unwrap_or(&image.working_dir) {
        "" => "/",
        directory => directory,
    };
    let reference = image.reference.clone();
    let found = find_program(layers, program, &Path::new("/").join(directory), &search_path(image, spec))
        .map_err(|source| ImageError::Look { reference: reference.clone(), source })?;
    let program = program.to_owned();
    match found {
        Program::Executable => Ok(()),
        Program::NotExecutable => Err(ImageError::ProgramNotExecutable { reference, program }),
        Program::Missing => Err(ImageError::ProgramMissing { reference, program }),
    }
}

fn search_path(image: &ResolvedImage, spec: &BundleSpec) -> String {
    let of_bundle =
        spec.env.iter().rfind(|var| var.name == "PATH" && var.value_from.is_none()).map(|var| var.value.as_str());
    let of_image = || image.env.iter().rev().find_map(|var| var.strip_prefix("PATH="));
    of_bundle.or_else(of_image).unwrap_or(DEFAULT_PATH).to_owned()
}

#[cfg(test)]
mod tests {
    use berth_model::resource::bundle::EnvVar;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn command_replaces_entrypoint_and_arguments_and_args_the_arguments_alone() {
        let image = ResolvedImage { entrypoint: words("entry"), cmd: words("a b"), ..ResolvedImage::default() };
        let run = |command: &str, args: &str| {
            let spec = BundleSpec { command: words(command), args: words(args), ..BundleSpec::default() };
            argv(&image, &spec).unwrap().join(" ")
        };
        assert_eq!(run("", ""), "entry a b");
        assert_eq!(run("", "c"), "entry c");
        assert_eq!(run("cmd -x", ""), "cmd -x");
        assert_eq!(run("cmd", "c d"), "cmd c d");
    }

    #[test]
    fn nothing_to_run_is_an_error_that_says_what_to_do() {
        let image = ResolvedImage { reference: "r/web@sha256:0".into(), ..ResolvedImage::default() };
        let error = argv(&image, &BundleSpec::default()).unwrap_err();
        assert_eq!(error.code(), "NoProgram");
        assert!(error.to_string().contains("r/web@sha256:0"), "{error}");
        assert!(error.advice().contains("`command`"), "{}", error.advice());
    }

    #[test]
    fn the_bundles_search_path_counts_more_than_the_images() {
        let image = ResolvedImage { env: words("A=b PATH=/image"), ..ResolvedImage::default() };
        let env = vec![EnvVar { name: "PATH".into(), value: "/bundle".into(), ..EnvVar::default() }];
        assert_eq!(search_path(&image, &BundleSpec { env, ..BundleSpec::default() }), "/bundle");
        assert_eq!(search_path(&image, &BundleSpec::default()), "/image");
        assert_eq!(search_path(&ResolvedImage::default(), &BundleSpec::default()), DEFAULT_PATH);
    }
}
