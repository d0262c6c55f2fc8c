//! Keys and certificates of a cluster (as kubeadm lays them out): a CA, what it signs for the control plane and
//! this node, a front-proxy CA, and the key pair of service account tokens.
//!
//! What exists and is still good for a month is kept, so making them again changes nothing.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use jiff::{Timestamp, ToSpan};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::layout::Layout;

const CA_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 365;

/// Whom the certificates are for.
#[derive(Clone, Debug)]
pub struct Subjects {
    /// Name of this machine's Node.
    pub node_name: String,
    /// Addresses of this machine that clients use.
    pub node_addresses: Vec<IpAddr>,
    /// First address of the service range: the `kubernetes` Service.
    pub service_address: IpAddr,
    /// DNS domain of the cluster, for example `cluster.local`.
    pub cluster_domain: String,
}

/// The identities that get a client certificate: file name, user, group.
fn clients(node: &str) -> [(&'static str, String, &'static str); 7] {
    [
        ("admin", "kubernetes-admin".into(), "system:masters"),
        ("controller-manager", "system:kube-controller-manager".into(), ""),
        ("scheduler", "system:kube-scheduler".into(), ""),
        ("proxy", "system:kube-proxy".into(), ""),
        ("kubelet", format!("system:node:{node}"), "system:nodes"),
        ("apiserver-kubelet-client", "kube-apiserver-kubelet-client".into(), "system:masters"),
        ("network", "system:pod-network".into(), ""),
    ]
}

/// Makes what is missing below `layout`.
///
/// # Errors
/// A file cannot be read or written, or is not what its name says.
pub fn prepare(layout: &Layout, subjects: &Subjects) -> Result<()> {
    fs::create_dir_all(layout.pki("")).with_context(|| format!("create {}", layout.pki("").display()))?;
    let ca = authority(layout, "ca", "kubernetes-ca")?;
    for (file, user, group) in clients(&subjects.node_name) {
        leaf(layout, &ca, file, &user, group, &[], ExtendedKeyUsagePurpose::ClientAuth)?;
    }
    let server = ExtendedKeyUsagePurpose::ServerAuth;
    leaf(layout, &ca, "apiserver", "kube-apiserver", "", &server_names(subjects), server.clone())?;
    let mut node_names = vec![subjects.node_name.clone()];
    node_names.extend(subjects.node_addresses.iter().map(ToString::to_string));
    let node_user = format!("system:node:{}", subjects.node_name);
    leaf(layout, &ca, "kubelet-server", &node_user, "system:nodes", &node_names, server)?;
    let front = authority(layout, "front-proxy-ca", "front-proxy-ca")?;
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    leaf(layout, &front, "front-proxy-client", "front-proxy-client", "", &[], client)?;
    service_account_key(layout)
}

fn server_names(subjects: &Subjects) -> Vec<String> {
    let mut names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"].map(Into::into).into();
    names.push(format!("kubernetes.default.svc.{}", subjects.cluster_domain));
    names.push(subjects.node_name.clone());
    names.push("127.0.0.1".into());
    names.push("::1".into());
    names.push(subjects.service_address.to_string());
    names.extend(subjects.node_addresses.iter().map(ToString::to_string));
    names
}

/// Reads a CA, or makes it.
fn authority(layout: &Layout, file: &str, name: &str) -> Result<Issuer<'static, KeyPair>> {
    let (cert, key) = (layout.pki(&format!("{file}.crt")), layout.pki(&format!("{file}.key")));
    if !(cert.exists() && key.exists()) {
        let mut params = CertificateParams::new(vec![])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        set_validity(&mut params, CA_DAYS)?;
        let pair = KeyPair::generate()?;
        write_secret(&key, &pair.serialize_pem())?;
        fs::write(&cert, params.self_signed(&pair)?.pem())?;
    }
    let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let pair = KeyPair::from_pem(&read(&key)?).with_context(|| format!("{} is not a key", key.display()))?;
    Issuer::from_ca_cert_pem(&read(&cert)?, pair).with_context(|| format!("{} is not a CA", cert.display()))
}

/// Makes a certificate unless one for the same names is there and still good for a month.
fn leaf(
    layout: &Layout,
    ca: &Issuer<'static, KeyPair>,
    file: &str,
    user: &str,
    group: &str,
    names: &[String],
    usage: ExtendedKeyUsagePurpose,
) -> Result<()> {
    let (cert, key) = (layout.pki(&format!("{file}.crt")), layout.pki(&format!("{file}.key")));
    let wanted = format!("{user}\n{group}\n{}\n", names.join("\n"));
    let note = layout.pki(&format!("{file}.names"));
    let same = fs::read_to_string(&note).is_ok_and(|old| old == wanted);
    if same && key.exists() && is_fresh(&cert) {
        return Ok(());
    }
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, user);
    if !group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, LEAF_DAYS)?;
    let pair = KeyPair::generate()?;
    write_secret(&key, &pair.serialize_pem())?;
    fs::write(&cert, params.signed_by(&pair, ca)?.pem())?;
    Ok(fs::write(note, wanted)?)
}

fn set_validity(params: &mut CertificateParams, days: i64) -> Result<()> {
    let date = |at: Timestamp| {
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        rcgen::date_time_ymd(date.year().into(), month, day)
    };
    let now = Timestamp::now();
    params.not_before = date(now.checked_sub(24.hours())?);
    params.not_after = date(now.checked_add((days * 24).hours())?);
    Ok(())
}

/// Whether the certificate was written less than eleven months ago: leaves are good for twelve.
fn is_fresh(cert: &Path) -> bool {
    let age = fs::metadata(cert).and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
    age.is_some_and(|age| age.as_secs() < 86_400 * 335)
}

fn service_account_key(layout: &Layout) -> Result<()> {
    let (key, public) = (layout.pki("sa.key"), layout.pki("sa.pub"));
    if key.exists() && public.exists() {
        return Ok(());
    }
    let pair = KeyPair::generate()?;
    write_secret(&key, &pair.serialize_pem())?;
    Ok(fs::write(public, pair.public_key_pem())?)
}

/// Writes a file that only its owner reads.
pub fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).with_context(|| format!("write {}", path.display()))?;
    Ok(file.write_all(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(address: &str) -> Subjects {
        Subjects {
            node_name: "n1".into(),
            node_addresses: vec![address.parse().expect("an address")],
            service_address: "10.96.0.1".parse().expect("an address"),
            cluster_domain: "cluster.local".into(),
        }
    }

    #[test]
    fn second_run_changes_nothing_and_a_new_address_only_the_server_certificates() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path(), folder.path());
        let read = |file: &str| fs::read_to_string(layout.pki(file)).expect("a file");
        prepare(&layout, &subjects("192.0.2.1")).expect("first run");
        let files = ["ca.crt", "admin.crt", "apiserver.crt", "sa.key"];
        let first = files.map(read);
        prepare(&layout, &subjects("192.0.2.1")).expect("second run");
        assert_eq!(first, files.map(read));
        prepare(&layout, &subjects("192.0.2.2")).expect("third run");
        let third = files.map(read);
        assert_eq!((&first[..2], &first[3]), (&third[..2], &third[3]));
        assert_ne!(first[2], third[2]);
    }
}
