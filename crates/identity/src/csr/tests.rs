use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509CertificationRequest};

use super::*;
use crate::testing::cart;

#[test]
fn the_request_proves_its_key_and_names_the_workload_in_one_critical_uri() {
    let made = CertificateRequest::new(&cart()).unwrap();
    let der = CertificateSigningRequestDer::from_pem_slice(made.pem.as_bytes()).unwrap();
    let (_, request) = X509CertificationRequest::from_der(&der).unwrap();
    request.verify_signature().unwrap();
    assert_eq!(request.certification_request_info.subject.iter().count(), 0);
    let extensions: Vec<_> = request.requested_extensions().unwrap().collect();
    let [ParsedExtension::SubjectAlternativeName(names)] = extensions.as_slice() else {
        panic!("{extensions:?}");
    };
    assert_eq!(names.general_names, [GeneralName::URI(&cart().to_string())]);
    assert!(!format!("{made:?}").contains("PRIVATE"));
}
