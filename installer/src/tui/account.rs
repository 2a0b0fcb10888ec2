//! The fifth screen: what opens the data, and who is the first administrator.

use crossterm::event::KeyEvent;
use zeroize::Zeroizing;

use super::form::{Form, Page, Step};
use crate::config::{Config, Encryption, PasswordHash, Role, Unlock, User, UserName, weakness};

const UNLOCKS: [&str; 3] = ["the TPM, if there is one", "the TPM", "the recovery code"];
const UNLOCK: usize = 0;
const NAME: usize = 1;
const PASSWORD: usize = 2;
const AGAIN: usize = 3;

#[derive(Clone)]
pub(super) struct Account {
    form: Form,
    hash: Option<PasswordHash>,
    /// Whether the password is being hashed.
    pub(super) waits: bool,
}

impl Account {
    pub(super) fn new() -> Self {
        let form = Form::new().choice("Data is opened by", &UNLOCKS, 0);
        Self { form: form.text("Administrator", "").secret("Password").secret("Once more"), hash: None, waits: false }
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Step {
        if self.waits {
            return Step::Stay;
        }
        let before = self.password();
        let step = self.form.key(key);
        if self.password() != before {
            self.hash = None;
        }
        step
    }

    pub(super) fn is_named(&self) -> bool {
        !self.form.typed(NAME).is_empty()
    }

    fn password(&self) -> Zeroizing<String> {
        Zeroizing::new(self.form.typed(PASSWORD).to_owned())
    }

    /// What is still to be hashed.
    pub(super) fn unhashed(&self) -> Option<Zeroizing<String>> {
        (self.is_named() && self.hash.is_none()).then(|| self.password())
    }

    pub(super) fn hashed(&mut self, hash: PasswordHash) {
        self.hash = Some(hash);
    }

    pub(super) fn problems(&self) -> [Option<String>; 4] {
        let (name, password) = (self.form.typed(NAME), self.form.typed(PASSWORD));
        if name.is_empty() {
            let alone = (!password.is_empty()).then(|| "whose password is it? Type a name, or take it away".to_owned());
            return [None, alone, None, None];
        }
        let wrong = name.parse::<UserName>().err();
        let weak = weakness(name, password);
        let differs = (self.form.typed(AGAIN) != password).then(|| "is not the same as above".to_owned());
        [None, wrong, weak, differs]
    }

    pub(super) fn write(&self, config: &mut Config) {
        let unlock = match self.form.chosen(UNLOCK) {
            1 => Some(Unlock::Tpm),
            2 => Some(Unlock::RecoveryCode),
            _ => None,
        };
        config.encryption = unlock.map(|unlock| Encryption { unlock: Some(unlock) });
        let name = self.form.typed(NAME).parse().ok();
        let owner = name.zip(self.hash.clone()).map(|(name, hash)| User {
            name,
            role: Role::Owner,
            password_hash: Some(hash),
            password: None,
        });
        config.users = owner.into_iter().collect();
    }

    pub(super) fn page(&self, width: u16) -> Page {
        let mut page = Page::default();
        page.text("All data is encrypted. A recovery code opens it in any case; it is shown at the end, once.", width);
        page.gap();
        self.form.onto(&mut page, &self.problems(), width);
        page.gap();
        page.text(
            match self.is_named() {
                true if self.waits => "The password is being hashed...",
                true => "Only a hash of the password is kept.",
                false => {
                    "Without a name, the machine shows a code at its first start, and who has it becomes the owner."
                }
            },
            width,
        );
        page
    }
}
