//! tulle-tls
