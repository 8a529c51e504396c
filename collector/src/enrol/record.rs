//! What enrolment writes into the collector's log.

use buildtrail_evidence::{digest::Digest, id::HostId};
use buildtrail_proto::v1::{
    CertificateRenewed, CertificateRevoked, HostCloned, HostEnrolled, HostMustEnrol, TokenCreated,
    TokenRevoked, collector_entry::Act,
};

use super::{
    Enrolment,
    authority::Issued,
    control::{Enrolled, TokenRow},
    timestamp,
};
use crate::peer::Host;

impl Enrolment {
    pub(super) fn record_token(&self, token: &TokenRow) {
        self.record(Act::TokenCreated(TokenCreated {
            token_id: token.id.clone(),
            by: token.created_by.clone(),
            uses: token.uses,
            expires: Some(timestamp(token.expires)),
        }));
    }

    pub(super) fn record_cancelled_token(&self, id: &str, by: &str) {
        let reason = "cancelled".to_owned();
        self.record(Act::TokenRevoked(TokenRevoked { token_id: id.to_owned(), by: by.to_owned(), reason }));
    }

    pub(super) fn record_enrolment(&self, enrolled: &Enrolled, name: &str, token_id: &str, address: &str) {
        self.record(Act::HostEnrolled(HostEnrolled {
            host_id: enrolled.id.to_string(),
            name: name.to_owned(),
            token_id: token_id.to_owned(),
            certificate_digest: digest(&enrolled.issued),
            expires: Some(timestamp(enrolled.issued.expires)),
            peer: address.to_owned(),
        }));
    }

    pub(super) fn record_renewal(&self, host: &Host, issued: &Issued, address: &str) {
        self.record(Act::CertificateRenewed(CertificateRenewed {
            host_id: host.id.to_string(),
            certificate_digest: digest(issued),
            expires: Some(timestamp(issued.expires)),
            peer: address.to_owned(),
        }));
    }

    pub(super) fn record_revocation(&self, host: &HostId, by: &str) {
        self.record(Act::CertificateRevoked(CertificateRevoked {
            subject: host.to_string(),
            by: by.to_owned(),
            reason: "revoked by an administrator".to_owned(),
            certificate_digest: Vec::new(),
        }));
    }

    pub(super) fn record_clone(&self, host: &Host, what: &str, boot_ids: Vec<String>, peers: Vec<String>) {
        self.record(Act::HostCloned(HostCloned {
            host_id: host.id.to_string(),
            name: host.name.clone(),
            what: what.to_owned(),
            boot_ids,
            peers,
        }));
    }

    pub(super) fn record_must_enrol(&self, host: &Host) {
        let reason = "its key is in use on two machines".to_owned();
        self.record(Act::HostMustEnrol(HostMustEnrol { host_id: host.id.to_string(), reason }));
    }

    fn record(&self, act: Act) {
        self.0.acts.record(act);
    }
}

fn digest(issued: &Issued) -> Vec<u8> {
    Digest::of(&issued.certificate).as_bytes().to_vec()
}
