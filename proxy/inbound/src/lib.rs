//! tulle-inbound
