//! tulle-admin
