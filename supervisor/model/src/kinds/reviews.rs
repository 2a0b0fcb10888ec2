//! Kinds whose objects are questions: they are created to be answered, and kept nowhere.

use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview};
use k8s_openapi::api::authorization::v1::{SelfSubjectAccessReview, SelfSubjectRulesReview};

use super::core::PLAIN;
use super::{Kind, Registration, Shape};
use crate::policy::Verb;

/// What the reviews have in common.
const REVIEW: Registration = Registration {
    namespaced: false,
    verbs: &[Verb::Create],
    instead: "a review is a question that is kept nowhere: create one, and read the answer in its status",
    review: true,
    ..PLAIN
};

/// Whether whoever asks may do one thing.
pub static SELF_SUBJECT_ACCESS_REVIEW: Registration = Registration {
    group: "authorization.k8s.io",
    kind: "SelfSubjectAccessReview",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
    shape: Shape::of::<SelfSubjectAccessReview>(),
    ..REVIEW
};

/// All that whoever asks may do in a namespace.
pub static SELF_SUBJECT_RULES_REVIEW: Registration = Registration {
    group: "authorization.k8s.io",
    kind: "SelfSubjectRulesReview",
    plural: "selfsubjectrulesreviews",
    singular: "selfsubjectrulesreview",
    shape: Shape::of::<SelfSubjectRulesReview>(),
    ..REVIEW
};

/// Who asks.
pub static SELF_SUBJECT_REVIEW: Registration = Registration {
    group: "authentication.k8s.io",
    kind: "SelfSubjectReview",
    plural: "selfsubjectreviews",
    singular: "selfsubjectreview",
    shape: Shape::of::<SelfSubjectReview>(),
    ..REVIEW
};

/// Whose a token is.
pub static TOKEN_REVIEW: Registration = Registration {
    group: "authentication.k8s.io",
    kind: "TokenReview",
    plural: "tokenreviews",
    singular: "tokenreview",
    shape: Shape::of::<TokenReview>(),
    ..REVIEW
};

impl Kind for SelfSubjectAccessReview {
    fn registration() -> &'static Registration {
        &SELF_SUBJECT_ACCESS_REVIEW
    }
}

impl Kind for SelfSubjectRulesReview {
    fn registration() -> &'static Registration {
        &SELF_SUBJECT_RULES_REVIEW
    }
}

impl Kind for SelfSubjectReview {
    fn registration() -> &'static Registration {
        &SELF_SUBJECT_REVIEW
    }
}

impl Kind for TokenReview {
    fn registration() -> &'static Registration {
        &TOKEN_REVIEW
    }
}
