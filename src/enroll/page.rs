//! The enrollment page: what a person is told before they install the profile.
//!
//! One self-contained document: no script, no resource from elsewhere, a style whose
//! hash the policy names. Text from outside is escaped here and nowhere else.

use std::fmt::Write as _;

use actix_web::http::header;
use actix_web::{HttpResponse, HttpResponseBuilder};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};
use schema::access::AccessRights;
use schema::link::{IdentityKind, Link};

use super::private;
use crate::error::EnrollError;

/// What the page of an open link says.
pub(super) struct Page<'a> {
    pub(super) organization: &'a str,
    pub(super) host: &'a str,
    pub(super) link: &'a Link,
    /// The profile carries a root to trust.
    pub(super) root: bool,
    pub(super) url: &'a str,
}

impl Page<'_> {
    pub(super) fn render(&self) -> String {
        let organization = escape(self.organization);
        let body = format!(
            "<h1>Device management by {organization}</h1>\
             <p class=lead>This lets <b>{organization}</b> manage this iPhone, iPad, Mac, \
             Apple&nbsp;TV or other Apple device through its server <b>{host}</b>.</p>\
             <a class=button href=\"?profile=1\">Download the profile</a>{counts}\
             <ol class=steps><li>Download the profile on the device that is to be managed.</li>\
             <li>Open <b>Settings</b> (on a Mac, <b>System Settings</b>); the profile waits near \
             the top, or under <b>General &rsaquo; VPN &amp; Device Management</b>.</li>\
             <li>Look through it and install it.</li></ol>\
             <h2>What will be installed</h2><ul>{installed}</ul>\
             <h2>What {organization} will be able to do</h2>{rights}\
             <p class=quiet>Management by itself reads no messages, mail or photos, and learns \
             where the device is only when it is put in Lost Mode. Removing the profile ends \
             the management.</p>{code}",
            host = escape(self.host),
            counts = self.counts(),
            installed = self.installed(),
            rights = self.rights(),
            code = self.code(),
        );
        document(&format!("Device management by {organization}"), &body)
    }

    /// Said where the download alone uses the link.
    fn counts(&self) -> &'static str {
        match self.link.identity {
            IdentityKind::Scep => "",
            IdentityKind::Pkcs12 => {
                "<p class=quiet>Each download is for one device and counts as a use of this \
                 link. The file holds the device&rsquo;s key: keep it to yourself.</p>"
            }
        }
    }

    fn installed(&self) -> String {
        let made = match self.link.identity {
            IdentityKind::Scep => "An identity certificate, made on the device,",
            IdentityKind::Pkcs12 => "An identity certificate and its key, made by the server,",
        };
        let asked = if self.link.ota { ASKED } else { "" };
        let mut items = format!(
            "{asked}<li>{made} by which it proves who it is</li>\
             <li>The management profile itself</li>"
        );
        if self.root {
            let host = escape(self.host);
            let _ = write!(
                items,
                "<li>The certificate by which the device knows <b>{host}</b></li>"
            );
        }
        if let Some(account) = &self.link.managed_apple_id {
            let account = escape(account);
            let _ = write!(items, "<li>The Managed Apple Account <b>{account}</b></li>");
        }
        items
    }

    fn rights(&self) -> String {
        let Some(rights) = self.link.offers.rights else {
            return "<p>This is a User Enrollment: only what belongs to the Managed Apple \
                    Account is managed. The device cannot be erased, and what is private on \
                    it is kept apart.</p>"
                .to_owned();
        };
        let mut list = String::from("<ul>");
        for (right, words) in WORDS {
            if rights.contains(right) {
                let _ = write!(list, "<li>{words}</li>");
            }
        }
        list.push_str("</ul>");
        list
    }

    /// The code of the link, for the camera of the device that is to be managed.
    fn code(&self) -> String {
        let Ok(code) = QrCode::with_error_correction_level(self.url, EcLevel::M) else {
            return String::new();
        };
        let image = code
            .render::<svg::Color<'_>>()
            .min_dimensions(180, 180)
            .dark_color(svg::Color("#000"))
            .light_color(svg::Color("#fff"))
            .build();
        // Inside HTML there is no XML declaration.
        let image = image.find("<svg").and_then(|at| image.get(at..));
        let image = image.unwrap_or_default();
        format!(
            "<figure>{image}<figcaption>On another device? Point the camera of the one that is \
             to be managed at this code.</figcaption></figure>"
        )
    }
}

/// The page of a link that leads nowhere; it says no more than who holds the link knows.
pub(super) fn closed(error: &EnrollError) -> String {
    let (title, words) = match error {
        EnrollError::Unknown => (
            "There is nothing here",
            "This is not an enrollment link, or not all of it. Copy the whole link, or ask \
             whoever gave it to you for a new one.",
        ),
        EnrollError::Void(_) | EnrollError::Outdated => (
            "This link is no longer valid",
            "It has expired, was used as often as it may be, or was taken back. Ask whoever \
             gave it to you for a new one.",
        ),
        _ => (
            "Not now",
            "The server cannot enroll devices at the moment. Please try again in a minute.",
        ),
    };
    let body = format!("<h1>{title}</h1><p class=lead>{words}</p>");
    document(title, &body)
}

/// Answers with a page under the strictest policy it can live with.
pub(super) fn html(response: &mut HttpResponseBuilder, page: String) -> HttpResponse {
    let style = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    private(response)
        .insert_header((header::CONTENT_SECURITY_POLICY, policy))
        .content_type("text/html; charset=utf-8")
        .body(page)
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\
         <meta name=robots content=noindex><title>{title}</title>\
         <style>{STYLE}</style></head><body><main>{body}</main></body></html>"
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// What over-the-air enrollment begins with.
const ASKED: &str = "<li>First a question to the device: its serial number, UDID, model, system \
    version and, where it has one, IMEI, told under the certificate Apple gave it</li>";

/// Each right as the person with the device would say it, the gravest first.
const WORDS: [(AccessRights, &str); 13] = [
    (AccessRights::ERASE, "Erase the device"),
    (
        AccessRights::LOCK_AND_CLEAR_PASSCODE,
        "Lock the device, remove its passcode, restart it and shut it down",
    ),
    (
        AccessRights::MANAGE_PROFILES,
        "Install and remove configuration profiles",
    ),
    (
        AccessRights::MANAGE_APPLICATIONS,
        "Install, remove and configure apps and media",
    ),
    (AccessRights::MANAGE_SETTINGS, "Change settings"),
    (
        AccessRights::MANAGE_PROVISIONING_PROFILES,
        "Install and remove provisioning profiles",
    ),
    (
        AccessRights::DEVICE_INFORMATION,
        "See the device&rsquo;s name, model, serial number, capacity and system version",
    ),
    (
        AccessRights::NETWORK_INFORMATION,
        "See network details such as phone number, carrier and hardware addresses",
    ),
    (
        AccessRights::INSPECT_APPLICATIONS,
        "See which apps are installed",
    ),
    (
        AccessRights::INSPECT_PROFILES,
        "See which profiles and certificates are installed",
    ),
    (
        AccessRights::INSPECT_PROVISIONING_PROFILES,
        "See which provisioning profiles are installed",
    ),
    (
        AccessRights::INSPECT_RESTRICTIONS,
        "See which restrictions are in force",
    ),
    (
        AccessRights::INSPECT_SECURITY,
        "See whether there is a passcode and whether data is encrypted",
    ),
];

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1d1d1f;--quiet:#6e6e73;--ground:#f5f5f7;--sheet:#fff;--line:#e3e3e8;--blue:#0066cc}\
@media(prefers-color-scheme:dark){:root{--ink:#f5f5f7;--quiet:#a1a1a6;--ground:#000;--sheet:#1c1c1e;--line:#38383a;--blue:#2997ff}}\
*{box-sizing:border-box}\
body{margin:0;padding:24px 16px;background:var(--ground);color:var(--ink);font:17px/1.5 -apple-system,system-ui,'Segoe UI',Roboto,sans-serif;-webkit-text-size-adjust:100%}\
main{max-width:36rem;margin:0 auto;padding:32px 28px;background:var(--sheet);border:1px solid var(--line);border-radius:18px;overflow-wrap:break-word}\
h1{margin:0 0 12px;font-size:28px;line-height:1.2;letter-spacing:-.01em}\
h2{margin:32px 0 8px;font-size:19px;line-height:1.3}\
p{margin:0 0 16px}\
ul,ol{margin:0;padding-left:1.3em}\
li{margin:4px 0}\
.button{display:block;margin:24px 0;padding:14px;background:var(--blue);color:#fff;border-radius:12px;text-align:center;text-decoration:none;font-weight:600}\
.button:focus-visible{outline:3px solid var(--ink);outline-offset:2px}\
.steps,.quiet,figcaption{color:var(--quiet);font-size:15px}\
.quiet{margin-top:16px}\
figure{margin:32px 0 0;padding-top:28px;border-top:1px solid var(--line);text-align:center}\
figure svg{width:180px;height:180px;border-radius:12px}\
figcaption{margin-top:8px}";

#[cfg(test)]
mod tests {
    use schema::Topic;
    use schema::UnixMillis;
    use schema::enrollment::EnrolledWith;
    use schema::link::{LinkId, LinkVoid};

    use super::*;

    fn link(rights: Option<AccessRights>, account: Option<&str>) -> Link {
        Link {
            id: LinkId("a".into()),
            secret: [0; 32],
            request: [0; 32],
            created: UnixMillis(0),
            expires: UnixMillis(1),
            max_uses: 1,
            uses: 0,
            tags: vec!["internal".into()],
            device: None,
            topic: Topic("com.apple.mgmt.x".into()),
            shared: false,
            identity: IdentityKind::Scep,
            ota: false,
            managed_apple_id: account.map(str::to_owned),
            offers: EnrolledWith {
                server_url: String::new(),
                check_in_url: String::new(),
                profile_identifier: String::new(),
                rights,
                capabilities: Vec::new(),
                signer: None,
            },
            revoked: false,
            principal: "anne".into(),
        }
    }

    fn render(link: &Link) -> String {
        let page = Page {
            organization: "Sons & <Daughters>",
            host: "mdm.example.org",
            link,
            root: true,
            url: "https://mdm.example.org/enroll/secret",
        };
        page.render()
    }

    #[test]
    fn the_page_says_what_may_be_done_by_whom_and_nothing_internal() {
        let some = AccessRights::ERASE | AccessRights::INSPECT_APPLICATIONS;
        let page = render(&link(Some(some), None));
        for text in [
            "Sons &amp; &lt;Daughters&gt;",
            "mdm.example.org",
            "Erase the device",
            "See which apps are installed",
            "href=\"?profile=1\"",
            "<figure><svg ",
        ] {
            assert!(page.contains(text), "{text}");
        }
        for text in [
            "Change settings",
            "anne",
            "internal",
            "<script",
            "<Daughters>",
            "http:",
            "<?xml",
        ] {
            let quiet = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!quiet.contains(text), "{text}");
        }
    }

    #[test]
    fn a_link_whose_download_counts_says_so() {
        let mut link = link(Some(AccessRights::ALL), None);
        let counts = "counts as a use of this link";
        assert!(!render(&link).contains(counts));
        link.identity = IdentityKind::Pkcs12;
        let page = render(&link);
        assert!(page.contains(counts) && page.contains("made by the server"));
    }

    #[test]
    fn a_person_is_told_what_the_device_will_be_asked() {
        let mut link = link(Some(AccessRights::ALL), None);
        assert!(!render(&link).contains("a question to the device"));
        link.ota = true;
        assert!(render(&link).contains("a question to the device"));
    }

    #[test]
    fn every_right_has_words() {
        let all = WORDS.map(|(right, _)| right).into_iter();
        let all = all.fold(AccessRights::NONE, AccessRights::with);
        assert_eq!(all, AccessRights::ALL);
    }

    #[test]
    fn a_user_enrollment_names_its_account_and_no_rights() {
        let page = render(&link(None, Some("anne@example.org")));
        assert!(page.contains("anne@example.org") && page.contains("User Enrollment"));
        assert!(!page.contains("Erase the device"));
    }

    #[test]
    fn why_a_link_is_void_is_not_told() {
        let expired = closed(&EnrollError::Void(LinkVoid::Expired));
        assert_eq!(expired, closed(&EnrollError::Void(LinkVoid::Revoked)));
        assert_ne!(expired, closed(&EnrollError::Unknown));
    }
}
