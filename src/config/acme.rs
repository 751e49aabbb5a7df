//! The keys of `device.tls = "acme"`: a CA that can be asked, by who agrees to its terms.

use reqwest::Url;

use super::{ConfigError, Device, Tls};

impl Device {
    /// The CA must be one that can be asked; keys that would be ignored are a mistake.
    pub(super) fn check_acme(&self) -> Result<(), ConfigError> {
        let wrong = |key, why: &str| Err(ConfigError::Wrong(key, why.to_owned()));
        if self.tls != Tls::Acme {
            let usual = Self::default();
            let set = [
                (
                    "device.acme_directory",
                    self.acme_directory != usual.acme_directory,
                ),
                ("device.acme_contact", !self.acme_contact.is_empty()),
                ("device.acme_agree_tos", self.acme_agree_tos),
                (
                    "device.acme_root_file",
                    self.acme_root_file != usual.acme_root_file,
                ),
            ];
            return match set.into_iter().find(|(_, set)| *set) {
                Some((key, _)) => wrong(key, "is set while tls is not \"acme\""),
                None => Ok(()),
            };
        }
        if !self.acme_agree_tos {
            return wrong(
                "device.acme_agree_tos",
                "must be true while tls is \"acme\": the CA issues nothing to who does not \
                 agree to its terms of service",
            );
        }
        let directory = Url::parse(&self.acme_directory);
        if !directory.is_ok_and(|url| url.scheme() == "https" && url.has_host()) {
            return wrong(
                "device.acme_directory",
                "must be the https URL of a directory",
            );
        }
        let contact = &self.acme_contact;
        if !contact.is_empty() && (!contact.contains('@') || contact.contains(char::is_whitespace))
        {
            return wrong("device.acme_contact", "must be an email address, or empty");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn toml(text: &str) -> Config {
        Config::from_layers(text, []).unwrap()
    }

    #[test]
    fn a_public_ca_is_asked_only_by_who_agrees_to_its_terms() {
        let check = |keys: &str| {
            let text = format!("[device]\n{keys}");
            toml(&text).check().map_err(|error| error.to_string())
        };
        let agreed = "tls = \"acme\"\nacme_agree_tos = true\n";
        assert_eq!(check(agreed), Ok(()));
        let good = "acme_contact = \"it@example.org\"\nacme_directory = \"https://ca:9000/acme\"";
        assert_eq!(check(&format!("{agreed}{good}")), Ok(()));
        let cases = [
            (
                "tls = \"acme\"".to_owned(),
                "device.acme_agree_tos must be true",
            ),
            (
                format!("{agreed}acme_directory = \"http://ca\""),
                "device.acme_directory",
            ),
            (
                format!("{agreed}acme_directory = \"\""),
                "device.acme_directory",
            ),
            (
                format!("{agreed}acme_contact = \"it\""),
                "device.acme_contact",
            ),
            (
                "acme_agree_tos = true".to_owned(),
                "device.acme_agree_tos is set while",
            ),
            (
                "acme_contact = \"a@b\"".to_owned(),
                "device.acme_contact is set while",
            ),
            (
                "acme_root_file = \"a\"".to_owned(),
                "device.acme_root_file is set while",
            ),
            (
                "acme_directory = \"https://ca\"".to_owned(),
                "device.acme_directory is set",
            ),
            (
                format!("{agreed}cert_file = \"a\""),
                "device.cert_file is set while",
            ),
        ];
        for (keys, begins) in cases {
            let error = check(&keys).unwrap_err();
            assert!(error.starts_with(begins), "{keys}: {error}");
        }
    }
}
