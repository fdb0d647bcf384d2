//! tulle-outbound
