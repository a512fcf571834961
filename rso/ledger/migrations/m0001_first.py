"""The first tables and indexes; the same SQL on SQLite and PostgreSQL."""

__all__ = ["SQL"]

SQL = """
CREATE TABLE api_token (
    id UUID PRIMARY KEY,
    token_hash VARCHAR(64) NOT NULL DEFAULT '',
    account VARCHAR(254) NOT NULL DEFAULT '',
    source VARCHAR(128) NOT NULL DEFAULT '',
    name VARCHAR(100) NOT NULL DEFAULT '',
    created_at TIMESTAMPTZ NOT NULL,
    last_used_at TIMESTAMPTZ,
    revoked_at TIMESTAMPTZ
);
CREATE TABLE attachment (
    id UUID PRIMARY KEY,
    facility VARCHAR(64) NOT NULL DEFAULT '',
    radiologist VARCHAR(64) NOT NULL DEFAULT '',
    conditions TEXT NOT NULL DEFAULT '{}'
);
CREATE TABLE audit (
    id BIGINT PRIMARY KEY,
    at TIMESTAMPTZ NOT NULL,
    actor VARCHAR(254) NOT NULL DEFAULT '',
    action VARCHAR(64) NOT NULL DEFAULT '',
    facility VARCHAR(64) NOT NULL DEFAULT '',
    exam VARCHAR(10) NOT NULL DEFAULT '',
    facts TEXT NOT NULL DEFAULT '{}',
    previous VARCHAR(64) NOT NULL DEFAULT '',
    hash VARCHAR(64) NOT NULL DEFAULT ''
);
CREATE TABLE batch (
    id UUID PRIMARY KEY,
    channel VARCHAR(32) NOT NULL DEFAULT '',
    facility VARCHAR(64) NOT NULL DEFAULT '',
    source VARCHAR(128) NOT NULL DEFAULT '',
    kind VARCHAR(16) NOT NULL DEFAULT '',
    peer_address VARCHAR(64) NOT NULL DEFAULT '',
    calling_ae_title VARCHAR(16) NOT NULL DEFAULT '',
    called_ae_title VARCHAR(16) NOT NULL DEFAULT '',
    exam_number VARCHAR(10) NOT NULL DEFAULT '',
    account VARCHAR(254) NOT NULL DEFAULT '',
    opened_at TIMESTAMPTZ NOT NULL,
    closed_at TIMESTAMPTZ
);
CREATE TABLE contact (
    id UUID PRIMARY KEY,
    owner_kind VARCHAR(16) NOT NULL DEFAULT '',
    owner VARCHAR(254) NOT NULL DEFAULT '',
    channel VARCHAR(32) NOT NULL DEFAULT '',
    address VARCHAR(254) NOT NULL DEFAULT '',
    verified_at TIMESTAMPTZ,
    opted_out BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE TABLE delivery (
    id UUID PRIMARY KEY,
    exam UUID NOT NULL,
    destination VARCHAR(64) NOT NULL DEFAULT '',
    priority SMALLINT NOT NULL DEFAULT 2,
    state VARCHAR(16) NOT NULL DEFAULT '',
    acknowledged INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    last_error TEXT NOT NULL DEFAULT '',
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE delivery_item (
    id UUID PRIMARY KEY,
    delivery UUID NOT NULL,
    destination VARCHAR(64) NOT NULL DEFAULT '',
    instance UUID NOT NULL,
    state VARCHAR(16) NOT NULL DEFAULT '',
    priority SMALLINT NOT NULL DEFAULT 2,
    attempts INTEGER NOT NULL DEFAULT 0,
    code VARCHAR(16) NOT NULL DEFAULT '',
    reason VARCHAR(200) NOT NULL DEFAULT '',
    next_at TIMESTAMPTZ NOT NULL,
    lease_owner VARCHAR(64) NOT NULL DEFAULT '',
    lease_until TIMESTAMPTZ,
    acknowledged_at TIMESTAMPTZ
);
CREATE TABLE destination (
    id UUID PRIMARY KEY,
    radiologist VARCHAR(64) NOT NULL DEFAULT '',
    code VARCHAR(64) NOT NULL DEFAULT '',
    sender VARCHAR(32) NOT NULL DEFAULT '',
    egress VARCHAR(16) NOT NULL DEFAULT '',
    options TEXT NOT NULL DEFAULT '{}',
    paused BOOLEAN NOT NULL DEFAULT FALSE,
    failures INTEGER NOT NULL DEFAULT 0,
    open_until TIMESTAMPTZ,
    last_success_at TIMESTAMPTZ,
    last_error TEXT NOT NULL DEFAULT ''
);
CREATE TABLE exam (
    id UUID PRIMARY KEY,
    number VARCHAR(10) NOT NULL DEFAULT '',
    facility VARCHAR(64) NOT NULL DEFAULT '',
    origin VARCHAR(16) NOT NULL DEFAULT '',
    status VARCHAR(16) NOT NULL DEFAULT '',
    priority SMALLINT NOT NULL DEFAULT 2,
    patient_name VARCHAR(400) NOT NULL DEFAULT '',
    patient_id VARCHAR(128) NOT NULL DEFAULT '',
    issuer_of_patient_id VARCHAR(64) NOT NULL DEFAULT '',
    birth_date VARCHAR(8) NOT NULL DEFAULT '',
    sex VARCHAR(1) NOT NULL DEFAULT '',
    name_key VARCHAR(400) NOT NULL DEFAULT '',
    accession_number VARCHAR(64) NOT NULL DEFAULT '',
    modality VARCHAR(16) NOT NULL DEFAULT '',
    body_part VARCHAR(64) NOT NULL DEFAULT '',
    request TEXT NOT NULL DEFAULT '{}',
    flags TEXT NOT NULL DEFAULT '[]',
    expected_instances INTEGER,
    instances INTEGER NOT NULL DEFAULT 0,
    created_by VARCHAR(254) NOT NULL DEFAULT '',
    owner VARCHAR(254) NOT NULL DEFAULT '',
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    last_instance_at TIMESTAMPTZ,
    settled_at TIMESTAMPTZ,
    delivered_at TIMESTAMPTZ
);
CREATE TABLE facility (
    id UUID PRIMARY KEY,
    code VARCHAR(64) NOT NULL DEFAULT '',
    name VARCHAR(200) NOT NULL DEFAULT '',
    issuer_of_patient_id VARCHAR(64) NOT NULL DEFAULT '',
    settings TEXT NOT NULL DEFAULT '{}'
);
CREATE TABLE hold (
    id UUID PRIMARY KEY,
    kind VARCHAR(16) NOT NULL DEFAULT '',
    facility VARCHAR(64) NOT NULL DEFAULT '',
    study UUID NOT NULL,
    instance UUID,
    table_row SMALLINT NOT NULL DEFAULT 0,
    reason VARCHAR(64) NOT NULL DEFAULT '',
    alarm BOOLEAN NOT NULL DEFAULT FALSE,
    state VARCHAR(16) NOT NULL DEFAULT 'open',
    exam UUID,
    evidence TEXT NOT NULL DEFAULT '{}',
    first_person VARCHAR(254) NOT NULL DEFAULT '',
    resolved_by VARCHAR(254) NOT NULL DEFAULT '',
    resolution TEXT NOT NULL DEFAULT '',
    opened_at TIMESTAMPTZ NOT NULL,
    resolved_at TIMESTAMPTZ
);
CREATE TABLE instance (
    id UUID PRIMARY KEY,
    facility VARCHAR(64) NOT NULL DEFAULT '',
    study UUID NOT NULL,
    sop_instance_uid VARCHAR(64) NOT NULL DEFAULT '',
    sop_class_uid VARCHAR(64) NOT NULL DEFAULT '',
    series_instance_uid VARCHAR(64) NOT NULL DEFAULT '',
    transfer_syntax_uid VARCHAR(64) NOT NULL DEFAULT '',
    digest VARCHAR(64) NOT NULL DEFAULT '',
    size BIGINT NOT NULL DEFAULT 0,
    dataset_offset INTEGER NOT NULL DEFAULT 0,
    modality VARCHAR(16) NOT NULL DEFAULT '',
    series_number VARCHAR(12) NOT NULL DEFAULT '',
    series_description VARCHAR(64) NOT NULL DEFAULT '',
    instance_number VARCHAR(12) NOT NULL DEFAULT '',
    number_of_frames INTEGER NOT NULL DEFAULT 1,
    conflict BOOLEAN NOT NULL DEFAULT FALSE,
    batch UUID NOT NULL,
    received_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE login_attempt (
    id UUID PRIMARY KEY,
    subject VARCHAR(300) NOT NULL DEFAULT '',
    at TIMESTAMPTZ NOT NULL
);
CREATE TABLE outbox (
    id UUID PRIMARY KEY,
    kind VARCHAR(16) NOT NULL DEFAULT '',
    event VARCHAR(64) NOT NULL DEFAULT '',
    dedupe VARCHAR(300) NOT NULL DEFAULT '',
    exam UUID,
    payload TEXT NOT NULL DEFAULT '{}',
    state VARCHAR(16) NOT NULL DEFAULT 'queued',
    attempts INTEGER NOT NULL DEFAULT 0,
    history TEXT NOT NULL DEFAULT '[]',
    next_at TIMESTAMPTZ NOT NULL,
    lease_owner VARCHAR(64) NOT NULL DEFAULT '',
    lease_until TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    done_at TIMESTAMPTZ
);
CREATE TABLE radiologist (
    id UUID PRIMARY KEY,
    code VARCHAR(64) NOT NULL DEFAULT '',
    name VARCHAR(200) NOT NULL DEFAULT ''
);
CREATE TABLE web_session (
    id VARCHAR(64) PRIMARY KEY,
    account VARCHAR(254) NOT NULL DEFAULT '',
    data TEXT NOT NULL DEFAULT '',
    created_at TIMESTAMPTZ NOT NULL,
    seen_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE source (
    id UUID PRIMARY KEY,
    facility VARCHAR(64) NOT NULL DEFAULT '',
    channel VARCHAR(32) NOT NULL DEFAULT '',
    identity VARCHAR(128) NOT NULL DEFAULT '',
    kind VARCHAR(16) NOT NULL DEFAULT '',
    networks TEXT NOT NULL DEFAULT '[]',
    certificate_fingerprint VARCHAR(128) NOT NULL DEFAULT '',
    called_ae_title VARCHAR(16) NOT NULL DEFAULT '',
    password_hash TEXT NOT NULL DEFAULT '',
    cleartext BOOLEAN NOT NULL DEFAULT FALSE,
    last_instance_at TIMESTAMPTZ
);
CREATE TABLE study (
    id UUID PRIMARY KEY,
    facility VARCHAR(64) NOT NULL DEFAULT '',
    study_instance_uid VARCHAR(64) NOT NULL DEFAULT '',
    identity VARCHAR(64) NOT NULL DEFAULT '',
    exam UUID,
    state VARCHAR(16) NOT NULL DEFAULT '',
    table_row SMALLINT NOT NULL DEFAULT 0,
    patient_name VARCHAR(400) NOT NULL DEFAULT '',
    patient_id VARCHAR(128) NOT NULL DEFAULT '',
    issuer_of_patient_id VARCHAR(64) NOT NULL DEFAULT '',
    birth_date VARCHAR(8) NOT NULL DEFAULT '',
    sex VARCHAR(1) NOT NULL DEFAULT '',
    undecodable BOOLEAN NOT NULL DEFAULT FALSE,
    name_key VARCHAR(400) NOT NULL DEFAULT '',
    accession_number VARCHAR(64) NOT NULL DEFAULT '',
    modality VARCHAR(16) NOT NULL DEFAULT '',
    body_part VARCHAR(64) NOT NULL DEFAULT '',
    study_date VARCHAR(8) NOT NULL DEFAULT '',
    description VARCHAR(200) NOT NULL DEFAULT '',
    kind VARCHAR(16) NOT NULL DEFAULT '',
    exam_number VARCHAR(10) NOT NULL DEFAULT '',
    decision TEXT NOT NULL DEFAULT '{}',
    correct_identity BOOLEAN NOT NULL DEFAULT FALSE,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE user_account (
    id UUID PRIMARY KEY,
    email VARCHAR(254) NOT NULL DEFAULT '',
    name VARCHAR(200) NOT NULL DEFAULT '',
    role VARCHAR(16) NOT NULL DEFAULT '',
    facilities TEXT NOT NULL DEFAULT '[]',
    password_hash TEXT NOT NULL DEFAULT '',
    totp_secret TEXT NOT NULL DEFAULT '',
    totp_last_step BIGINT NOT NULL DEFAULT 0,
    recovery_codes TEXT NOT NULL DEFAULT '[]',
    disabled BOOLEAN NOT NULL DEFAULT FALSE,
    preferences TEXT NOT NULL DEFAULT '{}',
    created_at TIMESTAMPTZ NOT NULL
);

CREATE UNIQUE INDEX facility_code ON facility (code);
CREATE INDEX source_facility ON source (facility, channel, identity);
CREATE UNIQUE INDEX radiologist_code ON radiologist (code);
CREATE UNIQUE INDEX destination_code ON destination (code);
CREATE INDEX attachment_facility ON attachment (facility);
CREATE UNIQUE INDEX user_email ON user_account (email);
CREATE UNIQUE INDEX contact_address ON contact (owner_kind, owner, channel, address);
CREATE INDEX session_expiry ON web_session (expires_at);
CREATE INDEX login_subject ON login_attempt (subject, at);
CREATE UNIQUE INDEX token_hash ON api_token (token_hash);
CREATE UNIQUE INDEX exam_number ON exam (number);
CREATE INDEX exam_active ON exam (facility, status, created_at);
CREATE INDEX exam_status ON exam (status, created_at);
CREATE INDEX exam_patient_id ON exam (facility, patient_id);
CREATE INDEX exam_birth_date ON exam (facility, birth_date);
CREATE INDEX exam_accession ON exam (facility, accession_number);
CREATE INDEX exam_name ON exam (facility, name_key);
CREATE UNIQUE INDEX study_identity ON study (facility, study_instance_uid, identity);
CREATE INDEX study_exam ON study (exam);
CREATE INDEX study_patient_id ON study (facility, patient_id);
CREATE UNIQUE INDEX instance_primary ON instance (facility, sop_instance_uid) WHERE NOT conflict;
CREATE UNIQUE INDEX instance_digest ON instance (facility, sop_instance_uid, digest);
CREATE INDEX instance_study ON instance (study);
CREATE INDEX instance_received ON instance (received_at);
CREATE INDEX hold_state ON hold (state, opened_at);
CREATE INDEX hold_study ON hold (study);
CREATE INDEX hold_instance ON hold (instance);
CREATE UNIQUE INDEX delivery_way ON delivery (exam, destination);
CREATE UNIQUE INDEX delivery_item_way ON delivery_item (delivery, instance);
CREATE INDEX delivery_item_due ON delivery_item (destination, priority, next_at, id) WHERE state = 'pending';
CREATE INDEX delivery_item_instance ON delivery_item (instance);
CREATE INDEX delivery_item_lease ON delivery_item (lease_owner) WHERE lease_owner <> '';
CREATE UNIQUE INDEX outbox_dedupe ON outbox (dedupe);
CREATE INDEX outbox_due ON outbox (kind, next_at) WHERE state = 'queued';
CREATE INDEX audit_exam ON audit (exam);
"""
