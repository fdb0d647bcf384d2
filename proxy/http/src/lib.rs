//! tulle-http
